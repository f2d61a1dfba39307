from __future__ import annotations

import math

import pytest

from nas.schemas import Constraint
from nas.search.objectives import Bound, Objectives
from search_spaces.errors import InvalidInput


def test_rows_are_minimised_and_costs_logarithmic() -> None:
    objectives = Objectives.of(["loss", "accuracy", "parameters", "anything"])
    row = objectives.row({"loss": 2.0, "accuracy": 0.75, "parameters": 1000, "anything": 7})
    assert row == pytest.approx((2.0, -0.75, 3.0, 7.0))


def test_what_is_missing_is_nan_and_a_cost_of_nothing_is_best() -> None:
    row = Objectives.of(["loss", "parameters"]).row({"parameters": 0})
    assert math.isnan(row[0])
    assert row[1] == -math.inf
    assert math.isnan(Objectives.of(["flops"]).row({"flops": math.nan})[0])


@pytest.mark.parametrize(
    ("bound", "value", "violation"),
    [
        (Bound("flops", max=200.0), 150.0, 0.0),
        (Bound("flops", max=200.0), 200.0, 0.0),
        (Bound("flops", max=200.0), 300.0, 0.5),
        (Bound("accuracy", min=0.8), 0.6, 0.25),
        (Bound("loss", min=1.0, max=2.0), 1.5, 0.0),
        (Bound("loss", min=1.0, max=2.0), 0.5, 0.5),
        (Bound("shift", max=0.0), 3.0, 3.0),
        (Bound("shift", max=-2.0), -1.0, 0.5),
    ],
)
def test_violations_are_relative_to_the_bound(bound: Bound, value: float, violation: float) -> None:
    assert bound.violation(value) == pytest.approx(violation)


def test_violations_add_up_over_what_is_known() -> None:
    objectives = Objectives.of(
        ["loss"], [Constraint(metric="flops", max=100), {"metric": "accuracy", "min": 0.5}]
    )
    assert objectives.violation({}) == 0.0
    assert objectives.violation({"flops": 150, "accuracy": math.nan}) == pytest.approx(0.5)
    assert objectives.violation({"flops": 150, "accuracy": 0.25}) == pytest.approx(1.0)
    assert objectives.broken({"flops": 150, "accuracy": 0.6}) == [Bound("flops", max=100)]


def test_bounds_are_written_as_they_are_meant() -> None:
    assert str(Bound("flops", max=2e6)) == "flops <= 2e+06"
    assert str(Bound("loss", min=1.0, max=2.0)) == "1 <= loss <= 2"


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        Objectives.of([], [{"metric": "loss", "max": 1}, {"metric": "loss", "maximum": 1}])
    assert [p.pointer for p in caught.value.problems] == ["/objectives", "/constraints/1"]
