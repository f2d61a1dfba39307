"""The Pareto front of a job, derived from its trials whenever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.catalogue.metrics import METRICS
from nas.jobs.submission import bound_problems, objective_problems
from nas.schemas import Constraint
from nas.search import pareto
from nas.search.pareto import Scale
from nas.store.scores import Flags, Floats, Scores
from search_spaces.errors import InvalidInput, Problem

Fidelities: TypeAlias = Literal["full", "any"]
FIDELITIES: tuple[Fidelities, ...] = ("full", "any")
Numbers: TypeAlias = list[int]

_MANY = 5000
_PIVOTS = 4


@dataclass(frozen=True)
class FrontOfNumbers:
    """Trials by number; both fronts sorted by the first objective, best first."""

    members: Numbers
    homogeneous: Numbers
    hypervolume: float
    reference_point: dict[str, float]
    knee: int | None


def check(objectives: Sequence[str] | None, bounds: Sequence[Constraint], fidelity: str) -> None:
    """Refuse what no front can be asked for.

    Raises:
        InvalidInput: with a pointer for each problem.
    """
    problems = list(objective_problems(objectives or (), METRICS))
    if objectives is not None and not objectives:
        problems.append(Problem("/objectives", "at least one objective is needed", tuple(METRICS)))
    problems += bound_problems((f"/bounds/{i}", bound) for i, bound in enumerate(bounds))
    if fidelity not in FIDELITIES:
        problems.append(Problem("/fidelity", f"{fidelity!r} is not a choice", FIDELITIES))
    if problems:
        raise InvalidInput(problems)


def front(
    scores: Scores,
    objectives: Sequence[str],
    bounds: Sequence[Constraint],
    scales: dict[str, dict[str, Any]] | None,
    fidelity: Fidelities,
) -> FrontOfNumbers:
    """The front among the trials that have every objective and keep every bound.

    Where the scores are means, one dominates another only beyond their intervals.
    """
    candidates = np.flatnonzero(_feasible(scores, objectives, bounds, fidelity))
    values = np.column_stack([scores.column(name)[candidates] for name in objectives])
    signs = np.array([-1.0 if _maximised(name) else 1.0 for name in objectives])
    points = values * signs
    measures = _measures(objectives, values, scales)
    alike = np.flatnonzero(scores.homogeneous[candidates])
    if scores.half_widths is None:
        members, homogeneous = _front(points), alike[_front(points[alike])]
    else:
        widths = np.column_stack([scores.uncertainty(name)[candidates] for name in objectives])
        members = pareto.front_beyond(points, widths)
        homogeneous = alike[pareto.front_beyond(points[alike], widths[alike])]
    members, homogeneous = _sorted(points, members), _sorted(points, homogeneous)
    scaled = (
        np.column_stack(
            [
                scale.scaled(column)
                for scale, column in zip(measures, values[members].T, strict=True)
            ]
        )
        if measures
        else points[members]
    )
    known = len(members) > 0
    return FrontOfNumbers(
        members=_numbers(candidates[members]),
        homogeneous=_numbers(candidates[homogeneous]),
        hypervolume=pareto.hypervolume(scaled, np.ones(len(objectives))) if known else 0.0,
        reference_point={
            name: float(scale.original(1.0))
            for name, scale in zip(objectives, measures, strict=False)
        },
        knee=int(candidates[members[pareto.knee(scaled)]]) + 1 if known else None,
    )


def _front(points: Floats) -> NDArray[np.intp]:
    """``pareto.front``, sooner for very many: first goes what a few good ones dominate."""
    if len(points) < _MANY:
        return pareto.front(points)
    columns = [np.ascontiguousarray(column) for column in points.T]
    sums = sum((c - c.min()) / ((c.max() - c.min()) or 1.0) for c in columns)
    pivots = [*np.argpartition(sums, _PIVOTS)[:_PIVOTS], *(c.argmin() for c in columns)]
    rows = np.arange(len(points))
    for pivot in pivots:
        here = [(column[rows], column[pivot]) for column in columns]
        no_better = np.logical_and.reduce([column >= value for column, value in here])
        equal = np.logical_and.reduce([column == value for column, value in here])
        rows = rows[~no_better | equal]
    return np.asarray(rows[pareto.front(points[rows])])


def _feasible(
    scores: Scores, objectives: Sequence[str], bounds: Sequence[Constraint], fidelity: Fidelities
) -> Flags:
    keep = (scores.complete if fidelity == "full" else scores.measured).copy()
    for name in objectives:
        keep &= ~np.isnan(scores.column(name))
    for bound in bounds:
        # a bound on what is not known is not kept: comparisons with NaN are false
        column = scores.column(bound.metric)
        if bound.min is not None:
            keep &= column >= bound.min
        if bound.max is not None:
            keep &= column <= bound.max
    return keep


def _measures(
    objectives: Sequence[str], values: Floats, scales: dict[str, dict[str, Any]] | None
) -> list[Scale]:
    """The job's own scales; of a metric that has none, the range of what was measured."""
    measures = []
    for name, column in zip(objectives, values.T, strict=True):
        if scales and name in scales:
            measures.append(Scale.from_dict(scales[name]))
        elif len(column):
            log = METRICS[name].scale == "log" and float(column.min()) > 0
            measures.append(Scale(float(column.min()), float(column.max()), log, _maximised(name)))
        else:
            return []
    return measures


def _maximised(name: str) -> bool:
    return METRICS[name].direction == "maximize"


def _sorted(points: Floats, members: NDArray[np.intp]) -> NDArray[np.intp]:
    # the first objective decides, the others and then the number break ties
    order = np.lexsort((members, *points[members].T[::-1]))
    return np.asarray(members[order])


def _numbers(rows: NDArray[np.intp]) -> Numbers:
    return [int(row) + 1 for row in rows]
