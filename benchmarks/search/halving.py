"""Successive halving as others have it: whether a trial trains on is decided when it is at a rung.

A trial that was told to stop stays where it is, as in the libraries; ours may go on later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.search.beds import Bed
from benchmarks.search.tables import Training
from nas.schemas import Fidelity
from nas.search.objectives import Objectives
from nas.search.pareto import Floats, ranks

FACTOR = Fidelity().reduction_factor


class Halving(Protocol):
    """Decides on trials of one bed, named by their rows."""

    def goes_on(self, row: int, rung: int) -> bool:
        """Whether a trial that is trained to a rung below the last goes on; asked once for each."""


NewHalving: TypeAlias = Callable[[Bed, int], Halving]
"""Given a bed and a seed."""


def climb(bed: Bed, row: int, halving: Halving | None) -> Generator[Training, None, int]:
    """Train from rung to rung while halving lets it, in full without one; the last rung."""
    if halving:
        for rung in range(bed.top):
            yield Training(row, rung)
            if not halving.goes_on(row, rung):
                return rung
    yield Training(row, bed.top)
    return bed.top


@dataclass(frozen=True)
class _Trial:
    """What Ray Tune's scheduler looks at in a trial."""

    trial_id: str


class RayAsha:
    """Ray Tune's own asynchronous successive halving. It takes one metric: the quality.

    Source: Li et al. 2020, arXiv:1810.05934, as in ray.tune.schedulers.AsyncHyperBandScheduler.
    """

    def __init__(self, bed: Bed, seed: int) -> None:
        self._bed = bed
        self._quality = Objectives.of(bed.objectives[:1])
        # it is driven without Ray Tune's controller, which it never looks at
        self._scheduler: Any = AsyncHyperBandScheduler(
            time_attr="steps",
            metric="quality",
            mode="min",
            max_t=bed.steps[-1],
            grace_period=bed.steps[0],
            reduction_factor=FACTOR,
        )

    def goes_on(self, row: int, rung: int) -> bool:
        """Whether its quality is among the best third of those at the rung."""
        trial = _Trial(str(row))
        if rung == 0:
            self._scheduler.on_trial_add(None, trial)
        (quality,) = self._quality.row(self._bed.space.rows[row].at(rung))
        result = {"steps": self._bed.steps[rung], "quality": quality}
        decision = self._scheduler.on_trial_result(None, trial, result)
        return bool(decision == TrialScheduler.CONTINUE)


class MoAsha:
    """Multi-objective asynchronous successive halving by an epsilon net, by the published rule.

    Of the n results at a rung, this one among them, a trial goes on if no more than n / factor are
    before it: front after front, and within a front a random member first, then always whichever is
    farthest from all before it. Distances are in units of the front's range, or the cost would
    decide alone. First come, first judged, as in Syne Tune, which samples at random. Its own code
    is not used: release 0.16.0 takes the sorted order itself for the places in it, and judges
    trials by the places of others, with which it finds less.
    Source: Schmucker et al. 2021, arXiv:2106.12639.
    """

    def __init__(self, bed: Bed, seed: int) -> None:
        self._bed = bed
        self._objectives = Objectives.of(bed.objectives)
        self._rng = random.Random(f"{seed}:epsilon net")
        self._results: list[list[tuple[float, ...]]] = [[] for _ in range(bed.top)]

    def goes_on(self, row: int, rung: int) -> bool:
        """Whether it is before all but a third of those at the rung."""
        results = self._results[rung]
        results.append(self._objectives.row(self._bed.space.rows[row].at(rung)))
        before = self._order(np.array(results)).index(len(results) - 1)
        return before <= len(results) / FACTOR

    def _order(self, results: Floats) -> list[int]:
        """Results (n, m), best first."""
        ranked = ranks(results)
        order: list[int] = []
        for rank in range(int(ranked.max()) + 1):
            members = np.flatnonzero(ranked == rank)
            first = self._rng.randrange(len(members))
            order += members[epsilon_net(results[members], first)].tolist()
        return order


def epsilon_net(front: Floats, first: int) -> list[int]:
    """Members of a front (n, m) in an order in which any beginning is well spread."""
    span = np.ptp(front, axis=0)
    unit = front / np.where(span > 0, span, 1.0)
    order = [first]
    distance = np.full(len(unit), np.inf)
    while len(order) < len(unit):
        np.minimum(distance, np.linalg.norm(unit - unit[order[-1]], axis=1), out=distance)
        distance[order] = -1.0
        order.append(int(distance.argmax()))
    return order
