"""Results of one fidelity, ranked: the only place where results are compared with each other."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

import numpy as np

from nas.search import pareto
from nas.search.objectives import Metrics, Objectives
from nas.search.pareto import Floats, Indices

K = TypeVar("K", int, str)


class Standings(Generic[K]):
    """Results by key, ranked by constraint domination (Deb et al. 2002).

    Feasible results come first, by non-dominated rank; then the others, by how much they violate.
    What is answered depends on the results only, never on the order in which they came.
    """

    def __init__(self, objectives: Objectives) -> None:
        self._objectives = objectives
        self._slots: dict[K, int] = {}
        self._used = 0
        self._measured = np.zeros((0, len(objectives.names)))
        self._violated = np.zeros(0)
        self._table: tuple[list[K], Floats, Floats] | None = None
        self._ranks: Indices | None = None

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: K) -> bool:
        return key in self._slots

    def record(self, key: K, metrics: Metrics) -> None:
        """Take in a result; one recorded before under the key is replaced."""
        if key not in self._slots:
            self._slots[key] = self._used
            self._used += 1  # a slot that was left is not taken again
        slot = self._slots[key]
        if slot == len(self._violated):
            more = max(64, slot)
            self._measured = np.pad(self._measured, ((0, more), (0, 0)))
            self._violated = np.pad(self._violated, (0, more))
        self._measured[slot] = self._objectives.row(metrics)
        self._violated[slot] = self._objectives.violation(metrics)
        self._changed()

    def remove(self, key: K) -> None:
        """Forget a result, if there is one."""
        if self._slots.pop(key, None) is not None:
            self._changed()

    @property
    def keys(self) -> list[K]:
        """All keys, ascending; the arrays below are in this order."""
        return self._tabled()[0]

    @property
    def rows(self) -> Floats:
        """Objectives (n, m), less is better."""
        return self._tabled()[1]

    @property
    def violations(self) -> Floats:
        """Sum of relative constraint violations (n,); 0 is feasible."""
        return self._tabled()[2]

    @property
    def ranks(self) -> Indices:
        """Constrained non-dominated rank (n,): 0 is the best."""
        if self._ranks is None:
            _, rows, violations = self._tabled()
            self._ranks = _constrained_ranks(rows, violations)
        return self._ranks

    def order(self, limit: int | None = None, chosen: Collection[K] = ()) -> list[K]:
        """Keys, best first: by rank, within a rank well spread; those ``chosen`` have a place.

        See ``pareto.spread`` for what "well spread" means and does to extremes.
        """
        keys, rows, _ = self._tabled()
        ranked = self.ranks
        wanted = len(keys) if limit is None else min(limit, len(keys))
        order: list[K] = []
        for rank in range(int(ranked.max(initial=-1)) + 1):
            if len(order) >= wanted:
                break
            members = np.flatnonzero(ranked == rank)
            placed = [i for i, member in enumerate(members) if keys[member] in chosen]
            spread = pareto.spread(rows[members], wanted - len(order), placed)
            order.extend(keys[members[i]] for i in spread)
        return order

    def dominators(self, key: K) -> int:
        """How many results dominate this one, and so always rank before it."""
        keys, rows, violations = self._tabled()
        place = keys.index(key)
        row, violation = rows[place], violations[place]
        if violation > 0:
            return int((violations < violation).sum())
        dominates = (rows <= row).all(axis=1) & (rows < row).any(axis=1)
        return int((dominates & (violations == 0)).sum())

    def _changed(self) -> None:
        self._table = self._ranks = None

    def _tabled(self) -> tuple[list[K], Floats, Floats]:
        if self._table is None:
            keys = sorted(self._slots)
            slots = [self._slots[key] for key in keys]
            self._table = keys, self._measured[slots], self._violated[slots]
        return self._table


def _constrained_ranks(rows: Floats, violations: Floats) -> Indices:
    ranked = np.zeros(len(rows), dtype=np.intp)
    feasible = violations == 0
    ranked[feasible] = pareto.ranks(rows[feasible])
    first = int(ranked[feasible].max(initial=-1)) + 1
    ranked[~feasible] = first + np.unique(violations[~feasible], return_inverse=True)[1]
    return ranked
