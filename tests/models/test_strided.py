"""The strided pattern: grid against definition, what is seen at all, and decoding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.models.attention.strided import Cut, Strided, completed, mix_strided, mix_strided_plainly
from search_spaces.attention.strided import StridedAttention, bands

from .sparse import H, equals_definition, inputs, module, moved_by

LENGTHS = [1, 3, 7, 8, 9, 16, 40, 61]


def pattern(N: int, stride: int, causal: bool) -> Tensor:
    """Both sets of section 4.2, pair by pair."""
    seen = torch.zeros(N, N, dtype=torch.bool)
    for i in range(N):
        for j in range(i + 1 if causal else N):
            seen[i, j] = abs(i - j) <= stride or (i - j) % stride == 0
    return seen


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("N", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_full_attention_masked(
    N: int, stride: int, causal: bool, dtype: torch.dtype
) -> None:
    built = module({"type": "strided", "stride": stride}, N, causal, dtype)
    equals_definition(built, pattern(N, stride, causal), dtype)


@pytest.mark.parametrize("causal", [True, False])
def test_long_grids_are_cut_into_bands(causal: bool) -> None:
    N, stride = 2100, 30
    assert len(list(bands(N, stride, causal))) > 3
    built = module({"type": "strided", "stride": stride}, N, causal, torch.float64)
    assert isinstance(built, Strided)
    cut = Cut(N, H, stride, causal)
    x = [t.requires_grad_() for t in built._project_rows(inputs(N)[:1].detach(), None)]
    x = [t.detach().requires_grad_() for t in x]
    fast, plain = mix_strided(*x, cut, None), mix_strided_plainly(*x, cut, None)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), x),
        torch.autograd.grad(plain.sin().sum(), x),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 50, 400])
def test_bands_cover_every_row_once(n: int, causal: bool) -> None:
    cut = list(bands(64 * n, 64, causal))
    assert [b.first for b in cut] == [0, *(b.last for b in cut[:-1])]
    assert cut[-1].last == n
    assert all(b.first >= b.before and b.last + b.after <= n for b in cut)


def test_who_sees_a_position() -> None:
    N, stride, at = 60, 7, 25
    causal, both = (module({"type": "strided", "stride": stride}, N, c) for c in (True, False))
    near, far = set(range(at - 6, at + 7)), set(range(at % stride, N, stride))
    assert moved_by(both, N, at) == sorted(near | far)
    assert moved_by(causal, N, at) == sorted(i for i in near | far if i >= at)


@pytest.mark.parametrize("pieces", [[1] * 70, [33, 1, 1, 30, 5], [8, 8, 1, 53]])
def test_decoding_in_any_pieces(pieces: list[int]) -> None:
    built = module({"type": "strided", "stride": 8}, 70, True)
    x = inputs(70)
    state, outputs = built.init_state(2), []
    for piece in x.split(pieces, dim=1):
        y, state = built.extend(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), built(x), rtol=0, atol=1e-12)


def test_completed() -> None:
    x = inputs(10)
    assert completed(x, 5) is x
    assert completed(x, 4).shape[1] == 12
    assert (completed(x, 4)[:, 10:] == 0).all()


def test_a_stride_near_the_root_costs_least() -> None:
    flops = [
        StridedAttention(stride=s).cost(1, 4096, 64, 4, True).flops for s in (8, 32, 64, 128, 512)
    ]
    assert min(flops) in flops[1:4]
    full = 8 * 4096 * 64**2 + 4 * 4096 * 4096 * 64
    assert min(flops) < full / 8
