"""Biases by distance: against their definitions, in every mechanism that takes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.measure.memory import LiveBytes
from nas.measure.parameters import count_parameters
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
POSITIONS: list[Position] = ["alibi", "relative"]
positions = pytest.mark.parametrize("position", POSITIONS)
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


def test_buckets_of_queries_that_look_back() -> None:
    away = [0, 1, 15, 16, 18, 19, 32, 64, 127, 128, 5000]
    wanted = [0, 1, 15, 16, 16, 17, 21, 26, 31, 31, 31]
    assert relative_buckets(-torch.tensor(away), True).tolist() == wanted


def test_buckets_of_both_sides() -> None:
    away = [1, 7, 8, 11, 12, 16, 32, 64, 127, 128, 5000]
    wanted = [1, 7, 8, 8, 9, 10, 12, 14, 15, 15, 15]
    assert relative_buckets(-torch.tensor(away), False).tolist() == wanted
    assert relative_buckets(torch.tensor(away), False).tolist() == [16 + w for w in wanted]
    assert relative_buckets(torch.tensor([0]), False).tolist() == [0]


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


@positions
@slots
def test_memory_is_never_of_all_pairs(position: Position, causal: bool) -> None:
    peaks = []
    for length in (1024, 2048):
        attention = build_attention(
            {"type": "full"}, d_model=D, heads=H, max_length=N, causal=causal, position=position
        )
        with LiveBytes() as live:
            attention(torch.randn(1, length, D)).sum().backward()
        peaks.append(live.peak)
    assert peaks[1] < 2.1 * peaks[0]
    assert peaks[1] < 4 * H * 2048**2 / 2


@slots
def test_holes_are_not_seen(causal: bool) -> None:
    x, mask = inputs(), torch.ones(2, N, dtype=torch.bool)
    mask[0, 20:90] = False
    for spec in BIASED:
        for position in POSITIONS:
            attention = module(spec, causal, position)
            changed = torch.where(mask.unsqueeze(-1), x, 100)
            y, again = attention(x, mask)[mask], attention(changed, mask)[mask]
            torch.testing.assert_close(again, y, rtol=0, atol=1e-12)


def test_steep_slopes_leave_normal_numbers() -> None:
    q, k = torch.zeros(2, 1, 300, 4)
    bias = position_bias("alibi", 1, True)
    assert bias is not None
    tiny = torch.finfo(torch.float32).tiny
    v = torch.eye(300).unsqueeze(0)[..., :4].contiguous()  # each mean is a weight
    bias.get_buffer("slopes").fill_(1)
    weights = mix_locally(q, k, v, 1, Band(300, 0), None, bias)
    assert not ((weights > 0) & (weights < tiny)).any()
    plain = mix_locally_plainly(q, k, v, 1, Band(300, 0), None, bias)
    assert ((plain > 0) & (plain < tiny)).any()
    torch.testing.assert_close(weights, plain, rtol=1e-5, atol=1e-29)


@positions
@slots
def test_half_precision_comes_near(position: Position, causal: bool) -> None:
    attention = module({"type": "full"}, causal, position).float()
    x = inputs().float()
    exact = attention(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = attention(x.requires_grad_())
    rounded.float().square().sum().backward()
    assert (rounded.float() - exact).square().mean().sqrt() < 0.05 * exact.std()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@positions
@pytest.mark.parametrize("spec", BIASED, ids=str)
def test_parameters_are_those_that_the_spec_says(spec: dict[str, Any], position: Position) -> None:
    attention, plain = module(spec, True, position), module(spec, True)
    added = count_parameters(attention) - count_parameters(plain)
    assert added == attention.spec.position_parameters(position, H)
    assert added == (H * 32 if position == "relative" else 0)
    saved = attention.state_dict().keys() - plain.state_dict().keys()
    assert saved == ({"bias.table"} if position == "relative" else set())


def test_global_positions_have_no_distance() -> None:
    spec = {"type": "longformer", "window": 4, "globals": 1}
    biased, plain = module(spec, False, "relative"), module(spec, False)
    plain.load_state_dict(biased.state_dict(), strict=False)
    x = inputs()
    with torch.no_grad():
        biased.bias.table.fill_(3)  # the same for all neighbours: as if the first were 3 lower
    torch.testing.assert_close(biased(x)[:, :1], plain(x)[:, :1], rtol=0, atol=1e-12)
    assert (biased(x)[:, 100] - plain(x)[:, 100]).abs().max() > 1e-3
    alone = {"type": "longformer", "window": 4, "globals": 0}
    biased, plain = module(alone, False, "relative"), module(alone, False)
    plain.load_state_dict(biased.state_dict(), strict=False)
    with torch.no_grad():
        biased.bias.table.fill_(3)
    torch.testing.assert_close(biased(x), plain(x), rtol=0, atol=1e-12)
