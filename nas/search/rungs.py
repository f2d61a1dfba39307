"""Asynchronous multi-objective successive halving: which trials train on, and how far.

Independent of the strategy that proposed them and of where anything is kept. All state comes from
the calls below, in any order in which each trial's own calls stay in order; so it is rebuilt from
rows by making them again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic

from nas.search.objectives import Constraint, Metrics, Objectives
from nas.search.standings import K, Standings


def is_audited(trial: K, share: float, seed: int) -> bool:
    """Whether a trial is drawn for the audit, of which this share is.

    Drawn from the seed and the key alone, so that no result can influence it, and so that it is
    known ever after.
    """
    return _drawn(f"{seed}:{trial}") < share


def hyperband_starts(rungs: int, reduction_factor: int) -> tuple[float, ...]:
    """The shares of the trials that begin with each rung, so that all get as much training.

    Source: Li et al. 2018, JMLR 18:185, where each rung that trials begin with is a bracket.
    """
    left = range(rungs - 1, -1, -1)
    sizes = [reduction_factor**more / (more + 1) for more in left]
    return tuple(size / sum(sizes) for size in sizes)


class Rungs(Generic[K]):
    """Trials by key (all numbers or all strings) on a ladder of rungs, 0 the lowest.

    steps: training steps of each rung, ascending; the last is full fidelity.  starts: the shares of
    the trials that begin with each rung, from the lowest; those that begin higher are compared with
    those that were promoted so far.
    A promotion is only proposed (asked twice, the answer is the same); ``start`` takes it.
    Source: Schmucker et al. 2021, arXiv:2106.12639 (MO-ASHA), with the extremes of a front before
    its epsilon net, so that neither the best in quality nor the cheapest is lost.
    """

    def __init__(
        self,
        steps: Sequence[int],
        reduction_factor: int,
        objectives: Sequence[str],
        constraints: Iterable[Constraint | Mapping[str, Any]] = (),
        *,
        starts: Sequence[float] = (1.0,),
        audit: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not steps or list(steps) != sorted(set(steps)):
            raise ValueError(f"rungs need ascending steps, not {list(steps)}")
        if reduction_factor < 2:
            raise ValueError(f"a reduction factor is 2 or more, not {reduction_factor}")
        compared = Objectives.of(objectives, constraints)
        self._steps = tuple(steps)
        self._factor = reduction_factor
        self._starts = tuple(starts)
        self._audit = audit
        self._seed = seed
        self._standings: list[Standings[K]] = [Standings(compared) for _ in steps]
        self._reached: dict[K, int] = {}
        self._running: dict[K, int] = {}
        self._ended: set[K] = set()

    @property
    def top(self) -> int:
        """The last rung."""
        return len(self._steps) - 1

    def first(self, name: str) -> int:
        """The rung that a trial begins with, drawn from the seed and its name alone."""
        drawn = _drawn(f"{self._seed}:{name}:first")
        bounds = itertools.accumulate(self._starts[:-1])
        return sum(drawn >= bound for bound in bounds)

    def start(self, trial: K, rung: int) -> None:
        """A trial begins (or goes on with) its training towards a rung."""
        if trial not in self._ended:
            self._running[trial] = rung

    def record(self, trial: K, rung: int, metrics: Metrics) -> None:
        """A trial has finished a rung with these metrics."""
        if trial in self._ended:
            return
        self._standings[rung].record(trial, metrics)
        self._reached[trial] = max(rung, self._reached.get(trial, rung))
        if self._running.get(trial, rung) <= rung:
            self._running.pop(trial, None)

    def fail(self, trial: K) -> None:
        """A trial has failed: it is out, and its results no longer stand in the way of others."""
        self._end(trial)
        for standings in self._standings:
            standings.remove(trial)

    def stop(self, trial: K) -> None:
        """A trial is to go no further; its results still count where others are ranked."""
        self._end(trial)

    def is_audited(self, trial: K) -> bool:
        """Whether it is one of the share that is promoted to the top whatever its rank."""
        return is_audited(trial, self._audit, self._seed)

    def next_promotion(self) -> tuple[K, int] | None:
        """The trial to promote now and the rung to train it to, or None.

        Of the n results at a rung the best ⌊n / reduction factor⌋ are promoted, feasible before
        infeasible, then by non-dominated rank, then well spread; higher rungs go first.
        """
        for rung in reversed(range(self.top)):
            quota = len(self._standings[rung]) // self._factor
            if (trial := self._promotable(rung, quota)) is not None:
                return trial, rung + 1
        return None

    def drain(self) -> tuple[K, int] | None:
        """What to promote once no new trial will be started, or None (for now, or for good).

        Rounds up instead of down, at each rung as soon as nothing more can arrive there: so the
        best of a last, partial rung go on, and the top is reached however few the trials are.
        """
        if promotion := self.next_promotion():
            return promotion
        for rung in range(self.top):
            if any(towards <= rung for towards in self._running.values()):
                return None
            quota = self._rounded_up(len(self._standings[rung]))
            if (trial := self._promotable(rung, quota)) is not None:
                return trial, rung + 1
        return None

    def hopeless(self) -> set[K]:
        """Trials paused at a rung that ``drain`` will never promote.

        Of use once no new trial will be started and all there are have been. Errs on the side of
        hope while results can still arrive at the rung or a trial promoted from it can still fail.
        """
        lost: set[K] = set()
        for rung in range(self.top):
            lost |= self._without_hope(rung, lost)
        return lost

    def _without_hope(self, rung: int, lost: set[K]) -> set[K]:
        """Those paused at a rung without hope, given those ``lost`` on the rungs below."""
        standings = self._standings[rung]
        paused = {t for t in standings.keys if self._paused_at(t, rung) and not self.is_audited(t)}
        below = {t for r in range(rung) for t in self._standings[r].keys if self._paused_at(t, r)}
        arriving = sum(towards <= rung for towards in self._running.values()) + len(below - lost)
        may_fail = sum(t in standings and towards > rung for t, towards in self._running.items())
        places = self._rounded_up(len(standings) + arriving) + may_fail
        if arriving == 0 and may_fail == 0:
            return paused - set(self._best(rung, places))
        return {t for t in paused if standings.dominators(t) >= places}

    def _promotable(self, rung: int, quota: int) -> K | None:
        waiting = [t for t in self._standings[rung].keys if self._paused_at(t, rung)]
        if not waiting:
            return None
        best = [t for t in self._best(rung, quota) if self._paused_at(t, rung)]
        audited = [t for t in waiting if self.is_audited(t)]
        return next(iter(best + audited), None)

    def _best(self, rung: int, quota: int) -> list[K]:
        # those already promoted keep their places, or each new result would reshuffle the net
        promoted = {t for t, reached in self._towards() if reached > rung}
        chosen = {t for t in promoted if not self.is_audited(t)}
        return self._standings[rung].order(quota, chosen=chosen)

    def _towards(self) -> Iterable[tuple[K, int]]:
        yield from self._reached.items()
        yield from self._running.items()

    def _paused_at(self, trial: K, rung: int) -> bool:
        return (
            self._reached.get(trial) == rung
            and trial not in self._running
            and trial not in self._ended
        )

    def _rounded_up(self, results: int) -> int:
        return -(-results // self._factor)

    def _end(self, trial: K) -> None:
        self._ended.add(trial)
        self._running.pop(trial, None)


def _drawn(text: str) -> float:
    """From 0 to below 1, the same for the same text."""
    digest = hashlib.sha256(text.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
