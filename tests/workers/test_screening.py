from __future__ import annotations

import pytest

from nas.costs import known_costs
from nas.schemas import Constraint, JobRequest
from search_spaces import Architecture, InvalidInput, load_space
from tests.latency.machines import table_of
from workers.screening import draw_pool, screen

REQUEST = JobRequest.model_validate({"task": {"name": "text_lm", "sequence_length": 64}})


def costs(arch: Architecture) -> dict[str, float]:
    return known_costs(arch, REQUEST.task.shape(), batch_size=4)


def with_constraints(*constraints: dict[str, object]) -> JobRequest:
    parsed = tuple(Constraint.model_validate(c) for c in constraints)
    return REQUEST.model_copy(update={"constraints": parsed})


def test_the_pool_is_reproducible_and_half_homogeneous() -> None:
    space = load_space("efficient-lm")
    pool = draw_pool(space, seed=3)
    assert pool == draw_pool(space, seed=3)
    assert pool != draw_pool(space, seed=4)
    assert sum(a.homogeneous for a in pool) >= len(pool) // 2
    assert sum(not a.homogeneous for a in pool) > len(pool) // 4


def test_scales_span_the_pool_and_the_trivial_loss() -> None:
    pool = draw_pool(load_space("tiny"), seed=0)
    scales = screen(pool, costs, REQUEST, trivial_loss=3.0).scales
    assert scales["loss"].scaled(3.0) == 1.0
    assert scales["loss"].scaled(0.0) == 0.0
    assert scales["accuracy"].scaled(1.0) == 0.0
    for name in ("parameters", "flops", "peak_memory_mb"):
        scaled = [scales[name].scaled(costs(arch)[name]) for arch in pool]
        assert min(scaled) == pytest.approx(0.0)
        assert max(scaled) == pytest.approx(1.0)


def test_what_rungs_measure_has_scales_too() -> None:
    pool = draw_pool(load_space("survey-lm"), seed=0)[:200]
    scales = screen(pool, costs, REQUEST, trivial_loss=3.0).scales
    assert set(REQUEST.task.metrics) <= set(scales)
    assert scales["effective_context"].scaled(64.0) == 0.0
    assert scales["effective_context"].scaled(1.0) == 1.0
    assert scales["effective_context"].scaled(8.0) == pytest.approx(0.5)
    for name in ("flops_low", "flops"):
        scaled = [scales["expected_flops"].scaled(costs(arch)[name]) for arch in pool]
        assert all(-1e-9 <= value <= 1 + 1e-9 for value in scaled)


def test_a_space_whose_costs_are_all_the_same_has_scales() -> None:
    pool = draw_pool(load_space("tiny"), seed=0)[:1] * 3
    scales = screen(pool, costs, REQUEST, trivial_loss=3.0).scales
    for name in ("flops", "expected_flops"):
        assert 0 < scales[name].scaled(costs(pool[0])["flops"]) < 1


def test_a_constraint_that_nothing_meets_is_refused_with_what_was_seen() -> None:
    pool = draw_pool(load_space("tiny"), seed=0)
    impossible = with_constraints(
        {"metric": "loss", "max": 1.0}, {"metric": "parameters", "max": 9}
    )
    with pytest.raises(InvalidInput) as refused:
        screen(pool, costs, impossible, trivial_loss=3.0)
    (problem,) = refused.value.problems
    assert problem.pointer == "/constraints/1"
    assert "parameters ≤ 9" in problem.message
    least = min(costs(arch)["parameters"] for arch in pool)
    assert problem.allowed[0].startswith(f"{least:.6g} to ")


def test_constraints_that_exclude_each_other_are_refused_together() -> None:
    pool = draw_pool(load_space("tiny"), seed=0)
    least = min(costs(arch)["parameters"] for arch in pool)
    most = max(costs(arch)["non_embedding_parameters"] for arch in pool)
    small = {"metric": "parameters", "max": least}
    large = {"metric": "non_embedding_parameters", "min": most}
    with pytest.raises(InvalidInput, match="together"):
        screen(pool, costs, with_constraints(small, large), trivial_loss=3.0)


def test_what_is_known_from_training_alone_refuses_nothing() -> None:
    pool = draw_pool(load_space("tiny"), seed=0)
    screen(pool, costs, with_constraints({"metric": "accuracy", "min": 0.99}), trivial_loss=3.0)


def test_a_cost_that_is_to_be_great_is_best_at_its_greatest() -> None:
    pool = draw_pool(load_space("tiny"), seed=0)[:300]
    shape = REQUEST.task.shape()
    table = table_of(pool[:100], shape, 4)

    def priced(arch: Architecture) -> dict[str, float]:
        return known_costs(arch, shape, 4, table)

    scale = screen(pool, priced, REQUEST, trivial_loss=3.0).scales["throughput"]
    values = [priced(arch)["throughput"] for arch in pool]
    assert scale.scaled(max(values)) == pytest.approx(0.0)
    assert scale.scaled(min(values)) == pytest.approx(1.0)
    bounded = with_constraints({"metric": "throughput", "min": 2 * max(values)})
    with pytest.raises(InvalidInput, match="throughput"):
        screen(pool, priced, bounded, trivial_loss=3.0)
    met = with_constraints({"metric": "throughput", "min": min(values)})
    assert screen(pool, priced, met, trivial_loss=3.0).scales
