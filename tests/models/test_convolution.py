"""The convolution branches: what each position sees, and both blocks against their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.errors import Unsupported
from nas.measure.memory import allocated_peak
from nas.models import build_feedforward
from nas.models.feedforward.convolution import (
    Convolution,
    DecoderBranches,
    EncoderBranches,
    Separable,
)

D, N = 16, 50


def convolution(causal: bool, **fields: Any) -> Convolution:
    torch.manual_seed(0)
    spec = {"type": "convolution", **fields}
    module = build_feedforward(spec, d_model=D, max_length=N, causal=causal)
    assert isinstance(module, Convolution)
    return module


def inputs(length: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


def decoder_plainly(block: DecoderBranches, x: Tensor, taps: int) -> Tensor:
    """Equal branches added after padding the narrow one with zeros (figure 3)."""
    x = x.transpose(1, 2)
    wide = block.wide.plainly(functional.pad(x, (taps - 1, 0))).relu()
    narrow = block.narrow.plainly(functional.pad(x, (taps - 5, 0)))
    total = wide + functional.pad(narrow, (0, wide.shape[2] - narrow.shape[2]))
    normed = block.norm(total).transpose(1, 2)
    return block.last.plainly(functional.pad(normed, (taps - 5, 0)))


def encoder_plainly(block: EncoderBranches, x: Tensor, taps: int) -> Tensor:
    """The same with an odd number of taps, centred."""
    near = functional.pad(x, (0, 0, 1, 1))
    weight = block.narrow.weight
    taken = [near[:, i : i + x.shape[1]] @ weight[:, :, i].t() for i in range(3)]
    narrow = torch.stack(taken).sum(dim=0).relu()
    wide = block.wide(x).relu()
    total = wide + functional.pad(narrow, (0, wide.shape[2] - narrow.shape[2]))
    normed = block.norm(total).transpose(1, 2)
    y = block.last.plainly(functional.pad(normed, ((taps - 3) // 2,) * 2))
    return functional.pad(y, (0, D - y.shape[2]))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("taps", [5, 7, 11])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("length", [1, 3, N])
def test_blocks_equal_their_definition(causal: bool, taps: int, ratio: float, length: int) -> None:
    module = convolution(causal, kernel=taps, ratio=ratio).double()
    x = inputs(length).requires_grad_()
    block = module.branches
    if isinstance(block, DecoderBranches):
        plain = decoder_plainly(block, x, taps)
    else:
        plain = encoder_plainly(block, x, taps)
    y = module(x)
    torch.testing.assert_close(y, plain, rtol=0, atol=1e-12)
    wanted = (x, *module.parameters())
    for g, h in zip(
        torch.autograd.grad(y.sin().sum(), wanted),
        torch.autograd.grad(plain.sin().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(g, h, rtol=0, atol=1e-11)


def test_defaults_are_the_paper_s() -> None:
    decoder, encoder = convolution(True).branches, convolution(False).branches
    assert isinstance(decoder, DecoderBranches)
    assert isinstance(encoder, EncoderBranches)
    shapes = [
        (*s.pointwise.weight.shape, *s.depthwise.weight.shape[2:])
        for s in (decoder.wide, decoder.narrow, decoder.last, encoder.last)
    ]
    assert shapes == [(2 * D, D, 11), (D // 2, D, 7), (D, 2 * D, 7), (D // 2, 4 * D, 9)]
    assert encoder.wide.weight.shape == (4 * D, D)
    assert encoder.narrow.weight.shape == (D // 2, D, 3)


@pytest.mark.parametrize(
    ("causal", "taps", "left", "right"),
    [(True, 11, 0, 16), (True, 5, 0, 4), (False, 11, 5, 5), (False, 6, 3, 2)],
)
def test_positions_that_see_a_position(causal: bool, taps: int, left: int, right: int) -> None:
    module = convolution(causal, kernel=taps).double()
    x = inputs()
    changed = x.clone()
    changed[:, 25] += 1
    moved = (module(changed) != module(x)).any(dim=2)[0].nonzero().flatten().tolist()
    assert moved == list(range(25 - left, 25 + right + 1))


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_what_stands_beyond_the_ends(causal: bool) -> None:
    """A norm has a shift: the sums of padded positions must be cleared after it again."""
    module = convolution(causal).double()
    assert isinstance(module.branches.norm, torch.nn.LayerNorm)
    torch.nn.init.ones_(module.branches.norm.bias)
    x = inputs()
    mask = torch.zeros(2, N, dtype=torch.bool)
    mask[:, 12:40] = True
    torch.testing.assert_close(
        module(x, mask)[:, 12:40], module(x[:, 12:40].contiguous()), rtol=0, atol=1e-12
    )


def test_an_encoder_writes_half_of_the_stream() -> None:
    y = convolution(causal=False)(inputs().float())
    assert (y[..., : D // 2] != 0).all()
    assert (y[..., D // 2 :] == 0).all()


def test_the_state_is_the_last_inputs_of_each_convolution() -> None:
    module = convolution(causal=True)
    _, state = module.extend(inputs().float(), module.init_state(2))
    assert state.entry.shape == (2, D, 10)
    assert state.last.shape == (2, 2 * D, 6)
    assert torch.equal(state.entry, inputs().float()[:, -10:].transpose(1, 2))
    for part in state:
        assert part.untyped_storage().nbytes() == 4 * part.numel()
    with pytest.raises(Unsupported, match="encoder"):
        convolution(causal=False).init_state(2)


def test_separable_convolutions_start_at_the_scale_of_their_inputs() -> None:
    torch.manual_seed(0)
    y = Separable(64, 96, 7)(torch.randn(4, 64, 200))
    assert y.std().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", [5, 7, 11])
def test_what_kernels_hold_is_in_the_arithmetic(causal: bool, kernel: int) -> None:
    B, length, width = 4, 400, 64
    fields = {"type": "convolution", "kernel": kernel}
    module = build_feedforward(fields, d_model=width, max_length=length, causal=causal)
    cost = module.spec.cost(B, length, width, causal)
    x = torch.randn(B, length, width)
    with torch.no_grad():
        assert cost.live == pytest.approx(allocated_peak(lambda: module(x)), rel=0.1)
    gradient = torch.randn_like(x)
    trained = allocated_peak(lambda: module(x.requires_grad_()).backward(gradient))
    # the output is held to the end here
    assert cost.backward == pytest.approx(trained - x.nbytes, rel=0.1)
