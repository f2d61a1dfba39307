"""Nyströmformer: its limit, its landmarks, the inverse and the convolution against plain forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from nas.models import build_attention
from nas.models.attention.nystromformer import (
    Nystromformer,
    add_convolution,
    add_convolution_plainly,
    means_by_segment,
    pseudo_inverse,
    pseudo_inverse_plainly,
    segment_means,
    segments_of,
)
from search_spaces.attention.nystromformer import NystromformerAttention

H = 2


def nystromformer(**fields: Any) -> Nystromformer:
    torch.manual_seed(0)
    spec = {"type": "nystromformer", **fields}
    module = build_attention(spec, d_model=16, heads=H, max_length=200, causal=False)
    assert isinstance(module, Nystromformer)
    return module


def stochastic(P: int, M: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(M)
    return torch.randn(P, M, M, generator=generator, dtype=torch.float64).softmax(dim=-1)


def distance(iterations: int, dtype: torch.dtype) -> float:
    """The greatest distance from full attention with a landmark for each of 64 positions."""
    fields = {"landmarks": 64, "iterations": iterations, "kernel": 0}
    module, full = (
        build_attention(spec, d_model=256, heads=4, max_length=64, causal=False).to(dtype)
        for spec in ({"type": "nystromformer", **fields}, {"type": "full"})
    )
    generator = torch.Generator().manual_seed(0)
    for linear in (module.qkv, module.out):
        torch.nn.init.normal_(linear.weight, std=1 / 16, generator=generator)
    full.load_state_dict(module.state_dict())
    x = torch.randn(2, 64, 256, generator=generator).to(dtype)
    with torch.no_grad():
        return float((module(x) - full(x)).abs().max())


def test_a_landmark_for_each_position_is_full_attention() -> None:
    assert distance(12, torch.float32) < 4e-4
    assert distance(24, torch.float64) < 1e-10


def test_more_iterations_come_closer() -> None:
    errors = [distance(iterations, torch.float64) for iterations in (3, 6, 12)]
    assert errors[0] > 2 * errors[1] > 20 * errors[2]


def test_fewer_positions_than_landmarks() -> None:
    few, many = (nystromformer(landmarks=m, iterations=12, kernel=0).double() for m in (10, 64))
    x = torch.randn(2, 10, 16, dtype=torch.float64)
    torch.testing.assert_close(many(x), few(x), rtol=0, atol=1e-12)
    longer = torch.cat((x, torch.randn(2, 90, 16, dtype=torch.float64)), dim=1)
    mask = torch.arange(100).expand(2, 100) < 10
    torch.testing.assert_close(many(longer, mask)[:, :10], few(x), rtol=0, atol=1e-12)


def test_a_hole_is_as_if_it_were_not_there() -> None:
    module = nystromformer(landmarks=16, kernel=0).double()
    x = torch.randn(1, 60, 16, dtype=torch.float64)
    mask = torch.ones(1, 60, dtype=torch.bool)
    mask[0, 7:29] = False
    alone = module(x[:, mask[0]])
    torch.testing.assert_close(module(x, mask)[:, mask[0]], alone, rtol=0, atol=1e-12)


def test_the_convolution_sees_zeros_in_a_hole() -> None:
    module = nystromformer(landmarks=8, kernel=9).double()
    with torch.no_grad():
        module.qkv.weight[:32] = 0  # every query sees all landmarks alike
        module.out.weight.copy_(torch.eye(16))
    assert module.kernel is not None
    x = torch.randn(1, 40, 16, dtype=torch.float64)
    mask = torch.ones(1, 40, dtype=torch.bool)
    mask[0, 10:15] = False
    v = module.qkv(x)[..., 32:] * mask.unsqueeze(-1)
    kernel = module.kernel.repeat_interleave(8, dim=0).unsqueeze(1)
    moved = torch.nn.functional.conv1d(v.transpose(1, 2), kernel, padding=4, groups=16)
    apart = module(x, mask) - moved.transpose(1, 2)
    mean = v.sum(dim=1, keepdim=True) / mask.sum()
    torch.testing.assert_close(
        apart[mask], mean.expand_as(x)[mask] * apart[0, 0, 0] / mean[0, 0, 0]
    )


@pytest.mark.parametrize("M", [1, 5, 64])
def test_inverse_equals_the_definition(M: int) -> None:
    a = stochastic(3, M).requires_grad_()
    fast, plain = pseudo_inverse(a, 4), pseudo_inverse_plainly(a, 4)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    (g,), (wanted,) = (torch.autograd.grad(y.sin().sum(), a) for y in (fast, plain))
    torch.testing.assert_close(g, wanted, rtol=1e-8, atol=1e-8)


def test_inverse_is_one() -> None:
    a = stochastic(2, 12)
    torch.testing.assert_close(pseudo_inverse(a, 30) @ a, torch.eye(12).double().expand(2, 12, 12))
    assert pseudo_inverse(torch.zeros(1, 4, 4), 6).eq(0).all()


def test_inverse_begins_from_its_own_matrix() -> None:
    a = stochastic(2, 20)
    steep = torch.cat((a[:1], torch.zeros(1, 20, 20, dtype=torch.float64)))
    steep[1, :, 3] = 1  # a column that sums to 20
    torch.testing.assert_close(
        pseudo_inverse(steep, 3)[0], pseudo_inverse(a, 3)[0], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("K", [1, 9, 65, 201])
@pytest.mark.parametrize("N", [1, 5, 64, 130])
def test_convolution_equals_the_definition(K: int, N: int) -> None:
    generator = torch.Generator().manual_seed(K)
    shapes = ((3, H, N, 4), (3, H, N, 4), (H, K))
    x = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    fast, plain = add_convolution(*x), add_convolution_plainly(*x)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), x),
        torch.autograd.grad(plain.sin().sum(), x),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("N", "M"), [(10, 10), (64, 16), (67, 16), (150, 64)])
def test_segments_are_those_of_an_unpadded_row(N: int, M: int) -> None:
    x = torch.randn(2, H, N, 4, dtype=torch.float64)
    segment, held = segments_of(torch.ones(2, N, dtype=torch.bool), M)
    assert held.all()
    assert segment[0].bincount().max() - segment[0].bincount().min() <= 1
    torch.testing.assert_close(means_by_segment(x, segment, held), segment_means(x, M))


def test_kernel_has_a_middle() -> None:
    with pytest.raises(ValidationError, match="odd number of values"):
        NystromformerAttention(kernel=4)
