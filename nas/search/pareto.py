"""Fronts, ranks, hypervolume and scales, of plain arrays in which everything is minimised.

A row with a NaN stands for a result that is not known: it is never a member of a front, adds no
hypervolume and comes last in every order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, overload

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
_LARGEST = float(np.finfo(np.float64).max)


def front(points: ArrayLike) -> Indices:
    """Indices of the non-dominated rows of (n, m) points, ascending; all copies of one are kept."""
    rows, known = _rows(points)
    members = known[moocore.is_nondominated(rows, keep_weakly=True)] if len(rows) else known
    return members.astype(np.intp)


def front_beyond(points: ArrayLike, half_widths: ArrayLike) -> Indices:
    """Indices, ascending, of the rows of (n, m) means that none dominates beyond its interval.

    half_widths (n, m): of the intervals of the means, 0 of exact values, infinite where unknown.
    One row dominates another if it is nowhere worse by more than the interval of their difference,
    √(a² + b²), and somewhere better by more; where that is unknown nothing dominates. Members that
    dominate one another in a circle all stay.
    """
    rows, known = _rows(points)
    widths = np.asarray(half_widths, dtype=np.float64).reshape(-1, rows.shape[1])[known]
    count = len(rows)
    beaten = np.zeros((count, count), dtype=np.bool_)
    for row in range(count):
        margin = np.hypot(widths, widths[row])
        with np.errstate(over="ignore"):
            not_worse = (rows[row] <= rows + margin) & np.isfinite(margin)
            beaten[row] = not_worse.all(axis=1) & (rows[row] < rows - margin).any(axis=1)
    reached = _closure(beaten)
    return known[~(reached & ~reached.T).any(axis=0)].astype(np.intp)


def ranks(points: ArrayLike) -> Indices:
    """Non-dominated rank of each row of (n, m) points: 0 is the front, 1 the front of the rest, …

    Rows with a NaN share one rank after all others.
    """
    rows, known = _rows(points)
    ranked = moocore.pareto_rank(rows) if len(rows) else np.zeros(0)
    result = np.full(_length(points), int(ranked.max()) + 1 if len(rows) else 0, dtype=np.intp)
    result[known] = ranked
    return result


def hypervolume(points: ArrayLike, reference_point: ArrayLike) -> float:
    """Volume dominated by (n, m) points and bounded by the reference point (m,).

    Points that are not better than the reference point in every objective add nothing.
    """
    rows, _ = _rows(points)
    reference = np.asarray(reference_point, dtype=np.float64)
    inside = rows[(rows < reference).all(axis=1)] if len(rows) else rows
    if not len(inside):
        return 0.0
    if reference.size == 1:
        return float(reference.item() - inside.min())
    return float(moocore.hypervolume(inside, reference))


def epsilon_net_order(points: ArrayLike, limit: int | None = None) -> list[int]:
    """Indices of (n, m) points, best first: front after front, and within a front by ``spread``.

    With a ``limit`` only the first so many are ordered and returned.
    Source: Schmucker et al. 2021, arXiv:2106.12639 (MO-ASHA).
    """
    values = np.asarray(points, dtype=np.float64)
    wanted = len(values) if limit is None else min(limit, len(values))
    ranked = ranks(values)
    order: list[int] = []
    for rank in range(int(ranked.max(initial=-1)) + 1):
        if len(order) >= wanted:
            break
        members = np.flatnonzero(ranked == rank)
        order.extend(members[spread(values[members], wanted - len(order))].tolist())
    return order


def spread(points: ArrayLike, limit: int | None = None, chosen: Sequence[int] = ()) -> list[int]:
    """Indices of (n, m) points of one front, in an order in which any beginning is well spread.

    First the best in each objective in turn, then the ``chosen`` (members that hold a place
    already), then again and again whichever is farthest from all before it, distances taken in
    units of the range of the points. NaN counts as worst.
    Source: the epsilon net of Schmucker et al. 2021, arXiv:2106.12639, there with a random start.
    """
    unit = _unit(np.asarray(points, dtype=np.float64))
    wanted = len(unit) if limit is None else min(limit, len(unit))
    # of several that are equally good in one objective, the best in sum is not dominated
    totals = unit.sum(axis=1)
    extremes = [int(np.lexsort((totals, column))[0]) for column in unit.T if len(unit)]
    order = list(dict.fromkeys((*extremes, *chosen)))[:wanted]
    if len(order) == wanted:
        return order
    distance = np.full(len(unit), np.inf)
    distance[order] = -1.0
    for index in order:
        np.minimum(distance, _squared_distances(unit, index), out=distance)
    while len(order) < wanted:
        index = int(np.argmax(distance))
        order.append(index)
        np.minimum(distance, _squared_distances(unit, index), out=distance)
        distance[index] = -1.0
    return order


def knee(points: ArrayLike) -> int:
    """Index of the front's best compromise: nearest to the ideal point in units of its range.

    Raises:
        ValueError: where there is no front (no rows, or a NaN in each).
    """
    members = front(points)
    if not len(members):
        raise ValueError("no points, no knee")
    distances = np.linalg.norm(_unit(np.asarray(points, dtype=np.float64)[members]), axis=1)
    return int(members[np.argmin(distances)])


@dataclass(frozen=True)
class Scale:
    """How a metric is brought to where 0 is the best and 1 the reference (worst that counts).

    ``low`` and ``high`` are in the metric's unit, low < high; ``log`` takes log10 of the values,
    which must then be positive (others become NaN); of a maximised metric ``high`` is the best.
    """

    low: float
    high: float
    log: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"a scale needs finite low <= high, not {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale starts above 0, not at {self.low}")

    @overload
    def scaled(self, value: float) -> float: ...
    @overload
    def scaled(self, value: Floats) -> Floats: ...
    def scaled(self, value: float | Floats) -> float | Floats:
        """From the metric's unit to 0 (best) … 1 (reference); beyond both where the value is."""
        best, span = self._best_and_span()
        result = (self._transform(value) - best) / span
        return float(result) if result.ndim == 0 else result

    @overload
    def original(self, scaled: float) -> float: ...
    @overload
    def original(self, scaled: Floats) -> Floats: ...
    def original(self, scaled: float | Floats) -> float | Floats:
        """Back to the metric's unit."""
        best, span = self._best_and_span()
        position = best + np.asarray(scaled, dtype=np.float64) * span
        result = np.asarray(10.0**position if self.log else position)
        return float(result) if result.ndim == 0 else result

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scale:
        """The scale that gave these values."""
        return cls(**values)

    def _transform(self, value: float | Floats) -> Floats:
        values = np.asarray(value, dtype=np.float64)
        if not self.log:
            return values
        return np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)

    def _best_and_span(self) -> tuple[float, float]:
        low, high = (float(self._transform(end)) for end in (self.low, self.high))
        # a metric that never varies still has to map to finite numbers
        span = (high - low) or 1.0
        return (high, -span) if self.maximize else (low, span)


def _closure(relation: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The transitive closure of an (n, n) relation, by squaring."""
    reached = relation
    while True:
        steps = reached.astype(np.float32)
        further = reached | (steps @ steps > 0)
        if (further == reached).all():
            return reached
        reached = further


def _length(points: ArrayLike) -> int:
    return len(np.asarray(points, dtype=np.float64))


def _rows(points: ArrayLike) -> tuple[Floats, Indices]:
    """The rows without NaN, infinities made finite, and their indices."""
    values = np.asarray(points, dtype=np.float64)
    if not len(values):
        return values.reshape(0, 1), np.zeros(0, dtype=np.intp)
    if values.ndim != 2:
        raise ValueError(f"points are (n, m), not of shape {values.shape}")
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    # moocore ranks infinities wrongly from four objectives on
    return np.clip(values[known], -_LARGEST, _LARGEST), known


def _unit(rows: Floats) -> Floats:
    """Each column from 0 (least) to 1 (greatest finite value, infinity and NaN)."""
    if not len(rows):
        return rows.reshape(0, 1)
    finite = np.isfinite(rows)
    low = np.where(finite, rows, np.inf).min(axis=0)
    high = np.where(finite, rows, -np.inf).max(axis=0)
    low, high = np.where(low <= high, (low, high), 0.0)
    filled = np.clip(np.where(np.isnan(rows), np.inf, rows), low, high)
    return np.asarray((filled - low) / np.where(high > low, high - low, 1.0))


def _squared_distances(rows: Floats, index: int) -> Floats:
    offsets = rows - rows[index]
    return np.asarray(np.einsum("ij,ij->i", offsets, offsets))
