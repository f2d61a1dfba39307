"""What every feed-forward mechanism must hold: being registered means being tested here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.models import build_feedforward
from nas.models.feedforward.base import FeedForward
from search_spaces.feedforward import FEEDFORWARD

from . import mechanisms as suite
from .mechanisms import LONG, SHORT, B, D, Run, inputs

FEEDFORWARDS = [
    pytest.param(v, id="-".join(map(str, v.values())))
    for spec in FEEDFORWARD.values()
    for v in suite.variants(spec)
]


def in_every_slot(test: Callable[..., None]) -> Callable[..., None]:
    """Every feed-forward variant in both kinds of slot."""
    each = pytest.mark.parametrize("spec", FEEDFORWARDS)
    slot = pytest.mark.parametrize("causal", [True, False], ids=["causal", "all"])
    return each(slot(test))


def feedforward(
    spec: dict[str, Any], causal: bool, *, max_length: int = LONG, seed: int = 0
) -> FeedForward[Any]:
    torch.manual_seed(seed)
    return build_feedforward(spec, d_model=D, max_length=max_length, causal=causal)


def masked(module: FeedForward[Any], mask: Tensor) -> Run:
    return lambda x: module(x, mask)


def with_auxiliary(loss: Tensor, auxiliary: Tensor | None) -> Tensor:
    return loss if auxiliary is None else loss + auxiliary


@in_every_slot
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_type(spec: dict[str, Any], causal: bool, dtype: torch.dtype) -> None:
    suite.has_shape_and_type(feedforward(spec, causal).to(dtype), dtype)


@in_every_slot
@pytest.mark.parametrize("N", [1, 2, 63, 129])
def test_any_length_trains(spec: dict[str, Any], causal: bool, N: int) -> None:
    module = feedforward(spec, causal)
    y, auxiliary = module.run(inputs(N, dtype=torch.float32))
    assert (auxiliary is None) == (module.auxiliary is None)
    suite.all_parameters_learn(module, with_auxiliary(y.square().sum(), auxiliary))


@in_every_slot
def test_position_wise_where_it_says_so(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal).double()
    if not module.spec.position_wise:
        return
    x = inputs()
    changed = x.clone()
    changed[:, 40] += 1
    moved = (module(changed) - module(x)).abs().amax(dim=(0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [40]


@in_every_slot
def test_gradients(spec: dict[str, Any], causal: bool) -> None:
    suite.gradients_are_right(feedforward(spec, causal, max_length=12).double(), 11)


@pytest.mark.parametrize("spec", FEEDFORWARDS)
@pytest.mark.parametrize("hidden", [False, True])
def test_no_look_ahead(spec: dict[str, Any], hidden: bool) -> None:
    module = feedforward(spec, causal=True).double()
    suite.never_looks_ahead(masked(module, suite.few_hidden(hidden)))


@in_every_slot
def test_batch_mates_do_not_matter(spec: dict[str, Any], causal: bool) -> None:
    suite.ignores_batch_mates(feedforward(spec, causal).double())


@in_every_slot
def test_padding_does_not_matter(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal).double()
    x, mask = inputs(), suite.padded()
    y, auxiliary = module.run(x, mask)
    again, auxiliary_again = module.run(suite.refilled(x, mask), mask)
    suite.equal(again[mask], y[mask])
    suite.equal(auxiliary_again, auxiliary)
    suite.equal(y[1:, :SHORT], module(x[1:, :SHORT]))


@in_every_slot
def test_a_hole_is_not_seen(spec: dict[str, Any], causal: bool) -> None:
    x, mask = inputs(), suite.holed()
    run = masked(feedforward(spec, causal).double(), mask)
    y = run(x)
    suite.equal(run(suite.refilled(x, mask))[mask], y[mask])
    assert y.isfinite().all()


@in_every_slot
def test_nothing_to_see(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal)
    nothing = torch.zeros(B, LONG, dtype=torch.bool)
    some = nothing.clone()
    some[0] = True
    for mask in (some, nothing):
        y, auxiliary = module.run(inputs(dtype=torch.float32), mask)
        assert y.isfinite().all()
        suite.gradients_stay_finite(module, with_auxiliary(y[mask].sum(), auxiliary))


@in_every_slot
def test_seed_decides(spec: dict[str, Any], causal: bool) -> None:
    suite.seed_decides(lambda seed: feedforward(spec, causal, seed=seed))


@in_every_slot
def test_safetensors(spec: dict[str, Any], causal: bool, tmp_path: Path) -> None:
    suite.survives_safetensors(lambda seed: feedforward(spec, causal, seed=seed), tmp_path)


@pytest.mark.parametrize("spec", FEEDFORWARDS)
def test_step_equals_forward(spec: dict[str, Any]) -> None:
    module = feedforward(spec, causal=True)
    x = inputs(dtype=torch.float32)
    state, steps = module.init_state(B), []
    with torch.no_grad():
        for t in range(LONG):
            y, state = module.extend(x[:, t : t + 1], state)
            steps.append(y)
        suite.equal(torch.cat(steps, dim=1), module(x), 1e-5)


@pytest.mark.parametrize("spec", FEEDFORWARDS)
def test_continuing_equals_forward(spec: dict[str, Any]) -> None:
    suite.continues(feedforward(spec, causal=True).double())


@in_every_slot
def test_autocast(spec: dict[str, Any], causal: bool) -> None:
    suite.survives_autocast(feedforward(spec, causal))


@in_every_slot
def test_last_projections_write_the_output(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal)
    x = inputs(dtype=torch.float32)
    y = module(x)
    with torch.no_grad():
        for projection in module.last_projections():
            projection.weight.mul_(0.5)
    torch.testing.assert_close(module(x), 0.5 * y)


@in_every_slot
@pytest.mark.parametrize(("batch", "N", "width"), [(2, 100, 32), (1, 256, 48)])
def test_cost(spec: dict[str, Any], causal: bool, batch: int, N: int, width: int) -> None:
    module = build_feedforward(spec, d_model=width, max_length=N, causal=causal)
    x = torch.randn(batch, N, width)
    cost = module.spec.cost(batch, N, width, causal)
    exact = cost.flops_low == cost.flops
    (suite.holds_its_cost if exact else suite.stays_within_its_cost)(module, x, cost)
    assert 0 < module.spec.active_parameters(width, causal) <= cost.parameters
