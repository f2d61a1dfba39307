"""Biases by distance and grouped heads: against their definitions, in every mechanism with them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.models import build_attention
from nas.models.attention.bias import alibi_slopes, position_bias, relative_buckets
from nas.models.attention.window import Band, mix_locally, mix_locally_plainly
from search_spaces.attention.base import Position

D, H, N = 16, 4, 150
BIASED = [
    {"type": "full"},
    {"type": "longformer", "window": 9, "globals": 0},
    {"type": "longformer", "window": 9, "globals": 3},
    {"type": "cascade", "window": 9},
]
positions = pytest.mark.parametrize("position", ["alibi", "relative"])
slots = pytest.mark.parametrize("causal", [True, False])
groups = pytest.mark.parametrize("group", [1, 2, 4])


def module(spec: dict[str, Any], causal: bool, position: Position = "none") -> Any:
    torch.manual_seed(0)
    return build_attention(
        spec, d_model=D, heads=H, max_length=N, causal=causal, position=position
    ).double()


def inputs(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, N, D, generator=generator, dtype=torch.float64)


def test_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]


@slots
def test_near_distances_have_buckets_of_their_own(causal: bool) -> None:
    near = 16 if causal else 8
    left = relative_buckets(-torch.arange(near), causal)
    assert left.tolist() == list(range(near))
    far = relative_buckets(torch.tensor([-127, -128, -5000]), causal)
    assert len(set(far.tolist())) == 1
    assert relative_buckets(torch.arange(-200, 200), causal).max() == 31 if not causal else True


@positions
@slots
def test_full_attention_adds_the_bias_to_its_scores(position: Position, causal: bool) -> None:
    attention = module({"type": "full"}, causal, position)
    x = inputs()
    q, k, v = (t.view(2, N, H, -1).transpose(1, 2) for t in attention.qkv(x).chunk(3, dim=-1))
    i, j = torch.arange(N).unsqueeze(1), torch.arange(N)
    added = attention.bias(1 - N, N - 1)[:, j - i + N - 1]
    if position == "alibi":
        slopes = torch.tensor(alibi_slopes(H), dtype=torch.float64)
        torch.testing.assert_close(added, -slopes[:, None, None] * (i - j).abs())
    scores = q @ k.transpose(2, 3) / math.sqrt(D / H) + added
    if causal:
        scores = scores.masked_fill(j > i, -math.inf)
    wanted = attention.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), wanted, rtol=0, atol=1e-10)


@positions
@slots
@pytest.mark.parametrize("spec", BIASED, ids=str)
def test_positions_matter_and_decoding_sees_them(
    spec: dict[str, Any], position: Position, causal: bool
) -> None:
    attention, plain = module(spec, causal, position), module(spec, causal)
    plain.load_state_dict(attention.state_dict(), strict=False)
    x = inputs()
    whole = attention(x)
    assert (whole - plain(x)).abs().max() > 1e-3
    changed = x.clone()
    changed[:, 100:] = 0
    if causal:
        assert torch.equal(attention(changed)[:, :100], whole[:, :100])
        state, pieces = attention.init_state(2), []
        for piece in x.split([1, 90, N - 91], dim=1):
            y, state = attention.extend(piece, state)
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-10)


@positions
@groups
@pytest.mark.parametrize("band", [Band(200, 0), Band(20, 20), Band(20, 20, 5)], ids=str)
def test_blocks_equal_the_definition(position: Position, group: int, band: Band) -> None:
    torch.manual_seed(0)
    bias = position_bias(position, H, band.right == 0)
    assert bias is not None
    bias = bias.double()
    q = torch.randn(2 * H, N, 4, dtype=torch.float64, requires_grad=True)
    k, v = (
        torch.randn(2 * H // group, N, 4, dtype=torch.float64, requires_grad=True) for _ in "kv"
    )
    wrt = [q, k, v, *bias.parameters()]
    fast, plain = (f(q, k, v, H, band, None, bias) for f in (mix_locally, mix_locally_plainly))
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), wrt),
        torch.autograd.grad(plain.sin().sum(), wrt),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-9)


@slots
@pytest.mark.parametrize("name", ["full", "longformer"])
def test_grouped_heads_are_repeated_ones(name: str, causal: bool) -> None:
    grouped = module({"type": name, "queries_per_key": 2}, causal)
    alone = module({"type": name}, causal)
    E = D // H
    w_q, w_k, w_v = grouped.qkv.weight.detach().split([D, D // 2, D // 2])
    repeated = [w.view(2, E, D).repeat_interleave(2, dim=0).flatten(0, 1) for w in (w_k, w_v)]
    weights = grouped.state_dict() | {"qkv.weight": torch.cat((w_q, *repeated))}
    alone.load_state_dict(weights)
    x = inputs()
    torch.testing.assert_close(grouped(x), alone(x), rtol=0, atol=1e-10)
    if causal:
        state = grouped.absorb(x, grouped.init_state(2))
        assert state.keys.numel() * 2 == alone.absorb(x, alone.init_state(2)).keys.numel()
