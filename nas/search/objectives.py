"""What a search optimises and must keep: objectives by name, bounds on metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

from nas.catalogue.metrics import METRICS
from search_spaces.errors import InvalidInput, Problem

Metrics: TypeAlias = Mapping[str, float]


class Constraint(Protocol):
    """A bound as a job states it (``nas.schemas.Constraint``)."""

    @property
    def metric(self) -> str:
        """The name of what is bounded."""

    @property
    def min(self) -> float | None:
        """The least value allowed."""

    @property
    def max(self) -> float | None:
        """The greatest value allowed."""


@dataclass(frozen=True)
class Bound:
    """A constraint that can say by how much it is broken."""

    metric: str
    min: float | None = None
    max: float | None = None

    def violation(self, value: float) -> float:
        """By how much a value breaks it, relative to the bound; 0 where it is kept."""
        excess = [
            (difference / (abs(bound) or 1.0))
            for bound, difference in (
                (self.min, (self.min or 0.0) - value),
                (self.max, value - (self.max or 0.0)),
            )
            if bound is not None
        ]
        return max(0.0, *excess)

    def __str__(self) -> str:
        low = "" if self.min is None else f"{self.min:g} <= "
        high = "" if self.max is None else f" <= {self.max:g}"
        return f"{low}{self.metric}{high}"


@dataclass(frozen=True)
class Objectives:
    """Names to optimise, each in the direction of its metric (unknown ones are minimised)."""

    names: tuple[str, ...]
    bounds: tuple[Bound, ...] = ()

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        constraints: Iterable[Constraint | Mapping[str, Any]] = (),
    ) -> Self:
        """From what a caller gives.

        Raises:
            InvalidInput: no objective, one named twice, or a constraint that bounds nothing.
        """
        problems = []
        if not names:
            problems.append(Problem("/objectives", "at least one objective is needed"))
        if len(set(names)) != len(names):
            problems.append(Problem("/objectives", f"an objective is named twice: {list(names)}"))
        bounds = []
        for i, constraint in enumerate(constraints):
            bound = _bound(constraint)
            if bound is None:
                problems.append(
                    Problem(
                        f"/constraints/{i}",
                        f"a constraint names a metric and min <= max, or one of both: {constraint}",
                        ("metric", "min", "max"),
                    )
                )
            else:
                bounds.append(bound)
        if problems:
            raise InvalidInput(problems)
        return cls(tuple(names), tuple(bounds))

    def row(self, metrics: Metrics) -> tuple[float, ...]:
        """One number per objective, less is better; log10 where the metric's scale is a log.

        A metric that is missing is NaN.
        """
        return tuple(_minimised(name, metrics.get(name, math.nan)) for name in self.names)

    def violation(self, metrics: Metrics) -> float:
        """Sum of the relative violations of all bounds; 0 is feasible.

        A bound on a metric that is not there (yet) is taken as kept.
        """
        return sum(bound.violation(metrics[bound.metric]) for bound in self._known(metrics))

    def broken(self, metrics: Metrics) -> list[Bound]:
        """The bounds that these metrics break."""
        return [b for b in self._known(metrics) if b.violation(metrics[b.metric]) > 0]

    def _known(self, metrics: Metrics) -> list[Bound]:
        return [b for b in self.bounds if not math.isnan(metrics.get(b.metric, math.nan))]


def _minimised(name: str, value: float) -> float:
    known = METRICS.get(name)
    if known is None:
        return float(value)
    if known.scale == "log":
        # NaN fails the comparison and must stay NaN
        value = -math.inf if value <= 0 else math.log10(value)
    return float(-value if known.direction == "maximize" else value)


def _bound(constraint: Constraint | Mapping[str, Any]) -> Bound | None:
    """None where the constraint is unusable."""
    if isinstance(constraint, Mapping):
        if not constraint.keys() <= {"metric", "min", "max"} or "metric" not in constraint:
            return None
        bound = Bound(constraint["metric"], constraint.get("min"), constraint.get("max"))
    else:
        bound = Bound(constraint.metric, constraint.min, constraint.max)
    if bound.min is None and bound.max is None:
        return None
    if bound.min is not None and bound.max is not None and bound.min > bound.max:
        return None
    return bound
