"""What every mechanism's arithmetic must hold beside its forward pass: training and decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.measure.flops import count_flops, count_training_flops
from nas.measure.memory import LiveBytes
from nas.models import build_attention, build_feedforward
from nas.models.positions import Positions
from nas.models.replay import Tape, recording, replaying
from search_spaces.attention import ATTENTION
from search_spaces.attention.base import AttentionSpec, Position
from search_spaces.cost import Cost
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.values import Spec

B, N, D, H = 2, 150, 32, 4  # more than two blocks or chunks, and ragged
MANY, LONG = 4, 400  # enough that the products of weights alone do not show


def variants(spec: type[Spec]) -> Iterator[dict[str, Any]]:
    """The defaults, and the smallest and the largest value of every hyperparameter."""
    domains = {name: d.values for name, d in spec.hyperparameters().items()}
    if "queries_per_key" in domains:  # groups must divide the heads
        domains["queries_per_key"] = (1, 2)
    if "sharing" in domains:  # a module that stands alone shares nothing
        domains["sharing"] = ("layer",)
    yield {"type": spec.name()}
    if domains:
        yield {"type": spec.name(), **{name: values[0] for name, values in domains.items()}}
        yield {"type": spec.name(), **{name: values[-1] for name, values in domains.items()}}


def cases(*, causal: bool | None = None) -> list[Any]:
    """Every attention variant in every slot and with every kind of positions that it takes."""
    return [
        pytest.param(v, slot, position, id=f"{'-'.join(map(str, v.values()))}-{slot}-{position}")
        for spec in ATTENTION.values()
        for v in variants(spec)
        for slot in (True, False)
        for position in ("none", "rotary", "relative")
        if (spec.causal or not slot) and causal in (None, slot) and position in spec.positions
    ]


FEEDFORWARDS = [
    pytest.param(v, causal, id=f"{'-'.join(map(str, v.values()))}-{causal}")
    for spec in FEEDFORWARD.values()
    for v in variants(spec)
    for causal in (True, False)
]


@pytest.mark.parametrize(("fields", "causal", "position"), cases())
def test_attention_in_training(fields: dict[str, Any], causal: bool, position: Position) -> None:
    module = build_attention(
        fields, d_model=D, heads=H, max_length=N, causal=causal, position=position
    )
    rotation = Positions(position, D, N).rotation(D // H, 0, N, module.out.weight)
    cost = module.spec.placed_cost(B, N, D, H, causal, position)
    trains_at_its_cost(module, cost, torch.randn(B, N, D), None, rotation)


@pytest.mark.parametrize(("fields", "causal"), FEEDFORWARDS)
def test_feedforward_in_training(fields: dict[str, Any], causal: bool) -> None:
    module = build_feedforward(fields, d_model=D, max_length=N, causal=causal)
    cost = module.spec.cost(B, N, D, causal)
    trains_at_its_cost(module, cost, torch.randn(B, N, D))


def trains_at_its_cost(module: nn.Module, cost: Cost, x: Tensor, *arguments: Any) -> None:
    forward = count_flops(module, x, *arguments)
    assert cost.flops_low <= forward <= cost.flops
    # where the data decide how much is done, the backward pass does as much more as the forward one
    decided = cost.flops - forward if cost.flops_low < cost.flops else 0
    assert forward == cost.flops - decided
    x.requires_grad_()
    trained = count_training_flops(lambda: module(x, *arguments).sum())
    assert trained == cost.training_flops - 3 * decided
    tape: Tape = []
    with recording(tape), torch.no_grad():
        module(x.detach(), *arguments)
    assert sum(choice.nbytes for choice in tape) == cost.choice_bytes
    with replaying(tape):
        assert count_flops(module, x.detach(), *arguments) == cost.again_flops - decided


@pytest.mark.parametrize(("fields", "causal", "position"), cases())
def test_attention_on_its_way_back(
    fields: dict[str, Any], causal: bool, position: Position
) -> None:
    module = build_attention(
        fields, d_model=D, heads=H, max_length=LONG, causal=causal, position=position
    )
    rotation = Positions(position, D, LONG).rotation(D // H, 0, LONG, module.out.weight)
    cost = module.spec.placed_cost(MANY, LONG, D, H, causal, position)
    peak = backward_peak(module, torch.randn(MANY, LONG, D), None, rotation)
    assert cost.backward_bytes == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize(("fields", "causal"), FEEDFORWARDS)
def test_feedforward_on_its_way_back(fields: dict[str, Any], causal: bool) -> None:
    module = build_feedforward(fields, d_model=D, max_length=LONG, causal=causal)
    cost = module.spec.cost(MANY, LONG, D, causal)
    peak = backward_peak(module, torch.randn(MANY, LONG, D))
    if cost.flops_low == cost.flops:
        assert cost.backward_bytes == pytest.approx(peak, rel=0.1)
    else:  # the data decide how many tokens the fullest expert takes
        assert 0.8 * cost.backward_bytes <= peak <= 1.1 * cost.backward_bytes


def backward_peak(module: nn.Module, x: Tensor, *arguments: Any) -> int:
    """Most bytes alive in the backward pass, but for gradients of the output and of weights."""
    named = dict(module.named_parameters())
    for parameter in named.values():  # to one that is there the new one is added at once
        parameter.grad = torch.zeros_like(parameter)
    x.requires_grad_()
    with LiveBytes() as live:
        y = module(x, *arguments)
        outside = 2 * y.untyped_storage().nbytes()
        # but for those that a function makes bit by bit
        outside += sum(p.nbytes for name, p in named.items() if name in ("rows", "columns"))
        gradient = torch.randn_like(y)
        live.peak = 0
        y.backward(gradient)
    return live.peak - outside


@pytest.mark.parametrize(("fields", "causal", "position"), cases(causal=True))
def test_attention_state(fields: dict[str, Any], causal: bool, position: Position) -> None:
    module = build_attention(
        fields, d_model=D, heads=H, max_length=N, causal=causal, position=position
    )
    positions, x = Positions(position, D, N), torch.randn(1, N, D)
    state = module.init_state(1)
    with torch.no_grad():
        for t in range(N):
            rotation = positions.rotation(D // H, t, 1, x)
            _, state = module.extend(x[:, t : t + 1], state, rotation)
    assert held(state) == module.spec.state_bytes(N, D, H, position)


@pytest.mark.parametrize("fields", [p.values[0] for p in FEEDFORWARDS if p.values[1]], ids=str)
def test_feedforward_state(fields: dict[str, Any]) -> None:
    module = build_feedforward(fields, d_model=D, max_length=40, causal=True)
    state = module.init_state(1)
    with torch.no_grad():
        for _ in range(40):
            _, state = module.extend(torch.randn(1, 1, D), state)
    assert held(state) == module.spec.state_bytes(D)


def held(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.nbytes
    return 0 if state is None else sum(held(part) for part in state)


@pytest.mark.parametrize("spec", [s for s in ATTENTION.values() if not s.causal])
def test_what_does_not_decode_has_no_state(spec: type[AttentionSpec]) -> None:
    assert spec().state_bytes(N, D, H, "none") == 0


@pytest.mark.parametrize("length", [10, N])
@pytest.mark.parametrize("fields", [v for s in ATTENTION.values() if s.causal for v in variants(s)])
def test_memory_for_the_next_segment(fields: dict[str, Any], length: int) -> None:
    module = build_attention(fields, d_model=D, heads=H, max_length=N, causal=True)
    kept = module.remember(torch.randn(B, length, D), None).nbytes if module.memory_size else 0
    assert kept == module.spec.cost(B, length, D, H, True).memory_bytes
