"""Fronts: equal to what comparing every pair gives, feasible, sorted, measured by fixed scales."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nas.catalogue.metrics import METRICS
from nas.jobs.fronts import check, front
from nas.schemas import Constraint
from nas.search import pareto
from nas.store.scores import Scores
from search_spaces.errors import InvalidInput

OBJECTIVES = ("loss", "accuracy", "parameters")
SCALES = {
    "loss": {"low": 0.0, "high": 1.0, "log": False, "maximize": False},
    "accuracy": {"low": 0.0, "high": 1.0, "log": False, "maximize": True},
    "parameters": {"low": 1.0, "high": 100.0, "log": True, "maximize": False},
}


def _scores(n: int, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    metrics = np.full((n, len(METRICS)), np.nan)
    values = {
        "loss": rng.integers(0, 12, n) / 12,
        "accuracy": rng.integers(0, 12, n) / 12,
        "parameters": rng.integers(1, 100, n).astype(float),
        "latency_ms": rng.random(n),
    }
    for name, column in values.items():
        metrics[:, list(METRICS).index(name)] = column
    metrics[rng.random(n) < 0.2, 0] = np.nan
    complete = rng.random(n) < 0.7
    return Scores(n, metrics, complete, complete | (rng.random(n) < 0.5), rng.random(n) < 0.3)


def _by_comparison(
    scores: Scores, keep: Any, objectives: tuple[str, ...], bounds: list[Constraint]
) -> set[int]:
    rows = {}
    for i in np.flatnonzero(keep):
        point = [
            scores.column(name)[i] * (-1 if METRICS[name].direction == "maximize" else 1)
            for name in objectives
        ]
        feasible = all(
            (b.min is None or scores.column(b.metric)[i] >= b.min)
            and (b.max is None or scores.column(b.metric)[i] <= b.max)
            for b in bounds
        )
        if feasible and not any(math.isnan(value) for value in point):
            rows[int(i) + 1] = point
    return {
        number
        for number, point in rows.items()
        if not any(
            all(a <= b for a, b in zip(other, point, strict=True)) and other != point
            for other in rows.values()
        )
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objectives", [OBJECTIVES, ("accuracy",), ("latency_ms", "loss")])
@pytest.mark.parametrize("fidelity", ["full", "any"])
def test_a_front_is_what_comparing_every_pair_gives(
    seed: int, objectives: tuple[str, ...], fidelity: Any
) -> None:
    scores = _scores(150, seed)
    bounds = [Constraint(metric="latency_ms", max=0.8), Constraint(metric="loss", min=0.1)]
    found = front(scores, objectives, bounds, SCALES, fidelity)
    keep = scores.complete if fidelity == "full" else scores.measured
    assert set(found.members) == _by_comparison(scores, keep, objectives, bounds)
    alike = keep & scores.homogeneous
    assert set(found.homogeneous) == _by_comparison(scores, alike, objectives, bounds)
    for numbers in (found.members, found.homogeneous):
        first = scores.column(objectives[0])[[number - 1 for number in numbers]]
        ascending = METRICS[objectives[0]].direction == "minimize"
        assert (np.diff(first if ascending else -first) >= 0).all()
    assert found.knee in found.members


@pytest.mark.parametrize("objectives", [OBJECTIVES, ("accuracy",), ("latency_ms", "loss")])
def test_many_trials_give_the_same_front_as_pareto_alone(objectives: tuple[str, ...]) -> None:
    scores = _scores(20_000, seed=1)
    keep = scores.complete & ~np.isnan(scores.column("loss"))
    rows = np.flatnonzero(keep)
    signs = [-1 if METRICS[name].direction == "maximize" else 1 for name in objectives]
    points = np.column_stack([scores.column(name)[rows] for name in objectives]) * signs
    bounds = [Constraint(metric="loss", max=1e9)]  # only those that have a loss
    found = front(scores, objectives, bounds, SCALES, "full")
    assert sorted(found.members) == [int(row) + 1 for row in rows[pareto.front(points)]]


def _three() -> Scores:
    scores = _scores(3)
    metrics = np.full((3, len(METRICS)), np.nan)
    metrics[:, list(METRICS).index("loss")] = [0.5, 0.2, 0.6]
    metrics[:, list(METRICS).index("parameters")] = [10.0, 100.0, 11.0]
    ones = np.ones(3, dtype=np.bool_)
    return Scores(scores.seq, metrics, ones, ones, ones)


def test_the_hypervolume_is_taken_on_the_scales_of_the_job() -> None:
    found = front(_three(), ("loss", "parameters"), (), SCALES, "full")
    assert found.members == [2, 1]
    # (0.5, log 10 / log 100) dominates half of the half; 100 parameters are at the reference
    assert found.hypervolume == pytest.approx(0.25)
    assert found.reference_point == {"loss": 1.0, "parameters": pytest.approx(100.0)}


def test_a_metric_without_a_scale_is_measured_by_its_range() -> None:
    found = front(_three(), ("loss", "parameters"), (), {"loss": SCALES["loss"]}, "full")
    assert found.reference_point == {"loss": 1.0, "parameters": pytest.approx(100.0)}
    assert found.hypervolume == pytest.approx(0.5)


def test_no_candidates_no_front() -> None:
    impossible = [Constraint(metric="loss", max=-1)]
    found = front(_three(), ("loss", "parameters"), impossible, SCALES, "full")
    assert (found.members, found.homogeneous, found.knee) == ([], [], None)
    assert found.hypervolume == 0.0
    assert found.reference_point["loss"] == 1.0
    assert front(_three(), ("latency_ms",), (), None, "full").reference_point == {}


def test_equal_results_are_all_members() -> None:
    scores = _three()
    scores.metrics[1] = scores.metrics[0]
    assert front(scores, ("loss", "parameters"), (), SCALES, "full").members == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({"objectives": []}, "/objectives"),
        ({"objectives": ["loss", "beauty"]}, "/objectives/1"),
        ({"objectives": ["loss", "loss"]}, "/objectives/1"),
        ({"bounds": [Constraint(metric="loss", max=1), Constraint(metric="x", max=1)]},
         "/bounds/1/metric"),
        ({"bounds": [Constraint(metric="loss")]}, "/bounds/0"),
        ({"fidelity": "some"}, "/fidelity"),
    ],
)  # fmt: skip
def test_what_no_front_can_be_asked_for(arguments: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check(**{"objectives": None, "bounds": [], "fidelity": "full", **arguments})
    assert [problem.pointer for problem in refused.value.problems] == [pointer]
