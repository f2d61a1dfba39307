from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nas.plot.plane import Plane


@pytest.mark.parametrize(
    ("objectives", "x", "y", "size"),
    [
        (["loss", "latency_ms", "parameters"], "latency_ms", "loss", "parameters"),
        (["parameters", "accuracy"], "parameters", "accuracy", None),
        (["loss"], "parameters", "loss", None),
        (["flops"], "flops", "loss", None),
        (["loss", "accuracy"], "accuracy", "loss", None),
        (["flops", "parameters"], "flops", "parameters", None),
        (["loss", "expected_depth", "flops"], "flops", "loss", "expected_depth"),
    ],
)
def test_the_first_cost_is_set_against_the_first_quality(
    objectives: list[str], x: str, y: str, size: str | None
) -> None:
    assert Plane.of(objectives) == Plane(x, y, size)


def trial(**metrics: float) -> Any:
    return SimpleNamespace(metrics=metrics)


def test_the_skyline_is_what_no_trial_beats() -> None:
    plane = Plane("parameters", "loss", None)
    cheap, good, best = (
        trial(parameters=1, loss=3),
        trial(parameters=2, loss=2),
        trial(parameters=9, loss=1),
    )
    worse, equal = trial(parameters=3, loss=2), trial(parameters=1, loss=3)
    assert plane.skyline([worse, best, cheap, good, equal]) == [cheap, good, best]


def test_the_skyline_of_what_is_maximised_rises() -> None:
    plane = Plane("parameters", "accuracy", None)
    cheap, worse, good = (
        trial(parameters=1, accuracy=0.5),
        trial(parameters=2, accuracy=0.4),
        trial(parameters=3, accuracy=0.6),
    )
    assert plane.skyline([good, worse, cheap]) == [cheap, good]
