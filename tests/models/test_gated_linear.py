"""Gated linear attention: chunks against the recurrence, the norm, the extremes of the gates."""

from __future__ import annotations

import math

import pytest
import torch

from nas.models import build_attention
from nas.models.attention.gated_linear import (
    ALL_KEPT,
    STEEPEST,
    GatedLinear,
    log_alpha,
    mix_gated,
    mix_gated_plainly,
    norm_and_gate,
    norm_and_gate_plainly,
)

H = 2


def tensors(N: int, dtype: torch.dtype = torch.float64, z: float = 3.0) -> list[torch.Tensor]:
    """Queries, keys, values, what gates are made of, a state."""
    generator = torch.Generator().manual_seed(N)
    x = [torch.randn(2 * H, N, 6, generator=generator, dtype=torch.float64) for _ in range(4)]
    x.append(torch.randn(2 * H, 6, 6, generator=generator, dtype=torch.float64))
    x[3] *= z
    return [t.to(dtype).requires_grad_() for t in x]


def side_by_side(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, H, *x.shape[1:]).transpose(1, 2).flatten(2)


def module(causal: bool) -> GatedLinear:
    torch.manual_seed(0)
    spec = {"type": "gated_linear"}
    built = build_attention(spec, d_model=16, heads=H, max_length=200, causal=causal)
    assert isinstance(built, GatedLinear)
    return built


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("N", [1, 63, 64, 65, 150])
@pytest.mark.parametrize("z", [1.0, 60.0])
def test_chunks_equal_the_recurrence(N: int, backwards: bool, z: float) -> None:
    x = tensors(N, z=z)
    fast = mix_gated(*x, H, backwards)
    turned = [t.flip(1) for t in x[:4]] if backwards else x[:4]
    rows, after = mix_gated_plainly(*turned, x[4])
    plain = side_by_side(rows.flip(1) if backwards else rows), after
    for y, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-10)
    loss, wanted_loss = (sum(t.sin().sum() for t in pair) for pair in (fast, plain))
    for g, wanted in zip(
        torch.autograd.grad(loss, x),  # type: ignore[arg-type]
        torch.autograd.grad(wanted_loss, x),  # type: ignore[arg-type]
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("z", [-1e6, -200.0, -18.0, 0.0, 1e6])
def test_single_precision_is_enough_at_every_gate(z: float) -> None:
    x, exact = (tensors(200, dtype) for dtype in (torch.float32, torch.float64))
    with torch.no_grad():
        x[3].fill_(z)
        exact[3].fill_(z)
    outputs = []
    for tensor in (x, exact):
        y, after = mix_gated(*tensor, H)
        (y.square().sum() + after.square().sum()).backward()
        outputs.append([y, after, *(t.grad for t in tensor)])
    for a, b in zip(*outputs, strict=True):
        assert a is not None
        assert b is not None
        scale = float(b.detach().abs().max())
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-5 * scale + 1e-30)


def test_gates_stay_between_their_bounds() -> None:
    z = torch.tensor([-1e9, -100.0, 0.0, ALL_KEPT])
    assert log_alpha(z).tolist() == [STEEPEST, STEEPEST, pytest.approx(-math.log(2) / 16), 0.0]
    assert float(log_alpha(torch.tensor(-19.9))) > STEEPEST


def test_gates_that_keep_all_are_linear_attention_without_a_norm() -> None:
    q, k, v, z, state = tensors(90)
    y, _ = mix_gated(q, k, v, torch.full_like(z, ALL_KEPT), torch.zeros_like(state), H)
    wanted = (q @ k.transpose(1, 2)).tril() @ v
    torch.testing.assert_close(y, side_by_side(wanted), rtol=0, atol=1e-10)


def test_norm_and_gate_equal_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, H, 4), (4,), (2, 5, H * 4))
    x = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    fast, plain = norm_and_gate(*x), norm_and_gate_plainly(*x)
    torch.testing.assert_close(fast, plain)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), x),
        torch.autograd.grad(plain.sin().sum(), x),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted)


def test_a_hole_is_as_if_it_were_not_there() -> None:
    for causal in (True, False):
        built = module(causal).double()
        x = torch.randn(1, 100, 16, dtype=torch.float64)
        mask = torch.ones(1, 100, dtype=torch.bool)
        mask[0, 17:81] = False
        alone = built(x[:, mask[0]])
        torch.testing.assert_close(built(x, mask)[:, mask[0]], alone, rtol=0, atol=1e-12)


def test_encoders_read_the_same_from_both_ends() -> None:
    built = module(causal=False).double()
    x = torch.randn(2, 150, 16, dtype=torch.float64)
    torch.testing.assert_close(built(x.flip(1)), built(x).flip(1), rtol=0, atol=1e-12)


def test_state_has_one_size() -> None:
    built = module(causal=True)
    _, early = built.extend(torch.randn(2, 3, 16), built.init_state(2))
    _, late = built.extend(torch.randn(2, 150, 16), early)
    assert early.shape == late.shape == (2 * H, 8, 8)
