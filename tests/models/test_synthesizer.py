"""Synthesizer: each variant against its definition, blocks against the plain form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.measure.memory import LiveBytes
from nas.models import build_attention
from nas.models.attention.synthesizer import Synthesizer, mix_learned, mix_learned_plainly
from search_spaces.errors import InvalidInput

H, L = 2, 150


def synthesizer(causal: bool, length: int = L, **fields: Any) -> Synthesizer:
    torch.manual_seed(0)
    spec = {"type": "synthesizer", **fields}
    module = build_attention(spec, d_model=16, heads=H, max_length=length, causal=causal)
    assert isinstance(module, Synthesizer)
    return module.double()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("N", [1, 64, 65, L])
def test_blocks_equal_the_definition(causal: bool, rank: int | None, N: int) -> None:
    generator = torch.Generator().manual_seed(N)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    rows = normal(H, L, L if rank is None else rank)
    columns = None if rank is None else normal(H, L, rank)
    v = normal(2, N, 8)
    x = [t for t in (rows, columns, v) if t is not None]
    holes = torch.ones(2, N, dtype=torch.bool)
    holes[1, N // 3 : N // 2] = False
    for valid in (None, holes):
        fast = mix_learned(rows, columns, v, valid, causal)
        plain = mix_learned_plainly(rows, columns, v, valid, causal)
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
        for g, wanted in zip(
            torch.autograd.grad(fast.sin().sum(), x),
            torch.autograd.grad(plain.sin().sum(), x),
            strict=True,
        ):
            torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_dense_is_an_mlp_of_the_position_alone(causal: bool) -> None:
    module = synthesizer(causal, variant="dense")
    x = torch.randn(2, 90, 16, dtype=torch.float64)
    with torch.no_grad():
        module.hidden_bias.normal_()
    w_hidden, w_v = module.qkv.weight.chunk(2)
    hidden = (x @ w_hidden.t() + module.hidden_bias).relu().view(2, 90, H, 8)
    scores = torch.einsum("bnhe,hle->bhnl", hidden, module.scores[:, :90])
    if causal:
        scores = scores.masked_fill(~torch.ones(90, 90, dtype=torch.bool).tril(), -torch.inf)
    v = (x @ w_v.t()).view(2, 90, H, 8).transpose(1, 2)
    wanted = module.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", ["random", "factorised"])
def test_learned_weights_do_not_depend_on_the_input(variant: str) -> None:
    module = synthesizer(False, variant=variant)
    x, y = torch.randn(2, 1, 70, 16, dtype=torch.float64)
    torch.testing.assert_close(module(x) + module(y), module(x + y), rtol=0, atol=1e-12)
    assert not torch.allclose(
        synthesizer(False, variant="dense")(x + y),
        synthesizer(False, variant="dense")(x) + synthesizer(False, variant="dense")(y),
    )


def test_parameters_are_those_of_the_variant() -> None:
    sizes = {
        variant: {
            n: tuple(p.shape) for n, p in synthesizer(True, variant=variant).named_parameters()
        }
        for variant in ("dense", "random", "factorised")
    }
    assert sizes["random"] == {"qkv.weight": (16, 16), "out.weight": (16, 16), "scores": (H, L, L)}
    assert sizes["factorised"]["rows"] == sizes["factorised"]["columns"] == (H, L, 8)
    assert sizes["dense"]["qkv.weight"] == (32, 16)
    assert sizes["dense"]["scores"] == (H, L, 8)


@pytest.mark.parametrize("variant", ["dense", "random", "factorised"])
def test_weights_of_all_queries_are_never_there_at_once(variant: str) -> None:
    N = 1024
    module = synthesizer(True, length=N, variant=variant).float()
    x = torch.randn(1, N, 16)
    with LiveBytes() as live:
        y = module(x)
        forward = live.peak
        if variant != "random":  # whose own gradient has that size
            y.sum().backward()
    assert max(forward, live.peak) < 4 * H * N * N / 2


def test_too_long() -> None:
    with pytest.raises(InvalidInput, match=f"{L + 1} tokens, but .* for {L}"):
        synthesizer(False)(torch.randn(1, L + 1, 16, dtype=torch.float64))
