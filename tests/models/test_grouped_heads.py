"""Heads of queries that share one of keys and values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.measure.memory import LiveBytes
from nas.measure.parameters import count_parameters
from nas.models import build_attention
from nas.models.positions import Positions
from search_spaces.attention.base import Position
from search_spaces.errors import InvalidInput

D, H, N = 16, 4, 150
E = D // H
GROUPED = ["full", "longformer"]
names = pytest.mark.parametrize("name", GROUPED)
groups = pytest.mark.parametrize("group", [2, 4])
slots = pytest.mark.parametrize("causal", [True, False])


def built(name: str, group: int, causal: bool, position: Position = "none") -> Any:
    torch.manual_seed(0)
    spec = {"type": name, "queries_per_key": group}
    return build_attention(
        spec, d_model=D, heads=H, max_length=N, causal=causal, position=position
    ).double()


def with_all_keys(grouped: Any, group: int, position: Position = "none") -> Any:
    """The same with the keys and values of a group repeated for each of its heads."""
    alone = built(grouped.spec.type, 1, grouped.causal, position)
    weights = grouped.state_dict()
    w_q, *w_kv = weights["qkv.weight"].split([D, D // group, D // group])
    repeated = [
        w.view(H // group, E, D).repeat_interleave(group, dim=0).flatten(0, 1) for w in w_kv
    ]
    alone.load_state_dict(weights | {"qkv.weight": torch.cat((w_q, *repeated))})
    return alone


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, N, D, generator=generator, dtype=torch.float64)


@names
@groups
@slots
@pytest.mark.parametrize("position", ["none", "rotary", "alibi", "relative"])
def test_they_are_repeated_heads(name: str, group: int, causal: bool, position: Position) -> None:
    grouped = built(name, group, causal, position)
    alone = with_all_keys(grouped, group, position)
    x = inputs().requires_grad_()
    turn = Positions(position, D, N).rotation(E, 0, N, x)
    mask = torch.ones(2, N, dtype=torch.bool)
    mask[0, 20:40] = False
    for valid in (None, mask):
        y, wanted = grouped(x, valid, turn), alone(x, valid, turn)
        rows = torch.ones_like(mask) if valid is None else valid
        torch.testing.assert_close(y[rows], wanted[rows], rtol=0, atol=1e-10)
        found, other = (torch.autograd.grad(t[rows].sin().sum(), x)[0] for t in (y, wanted))
        torch.testing.assert_close(found, other, rtol=0, atol=1e-10)


@names
@groups
def test_the_cache_is_as_much_smaller(name: str, group: int) -> None:
    x, grouped = inputs(), built(name, group, True)
    alone = with_all_keys(grouped, group)
    small, large = (m.absorb(x[:, :100], m.init_state(2)) for m in (grouped, alone))
    assert group * small.keys.numel() == large.keys.numel()
    assert group * small.values.numel() == large.values.numel()
    torch.testing.assert_close(
        grouped.extend(x[:, 100:], small)[0], alone(x)[:, 100:], rtol=0, atol=1e-10
    )


@names
@groups
@slots
def test_parameters_and_costs_are_smaller(name: str, group: int, causal: bool) -> None:
    grouped, alone = built(name, group, causal), built(name, 1, causal)
    assert count_parameters(alone) - count_parameters(grouped) == 2 * D * (D - D // group)
    small, large = (m.spec.cost(2, N, D, H, causal) for m in (grouped, alone))
    assert small.parameters == count_parameters(grouped)
    assert small.flops < large.flops
    assert small.saved_bytes < large.saved_bytes


@slots
def test_the_fused_kernel_takes_them(causal: bool) -> None:
    length = 1024
    module = built("full", 4, causal).float()
    with LiveBytes() as live:
        module(torch.randn(1, length, D)).sum().backward()
    assert live.peak < 4 * H * length**2 / 4


@names
def test_groups_must_divide_the_heads(name: str) -> None:
    spec = {"type": name, "queries_per_key": 4}
    with pytest.raises(InvalidInput, match="groups of 4 do not divide 6 heads"):
        build_attention(spec, d_model=24, heads=6, max_length=N, causal=True)
