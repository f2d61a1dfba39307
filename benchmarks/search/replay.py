"""Runs on a table: how much training a rival needs, and how that compares with random search."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.search.beds import Bed, load_beds
from benchmarks.search.rivals import ALL, Rival

TARGETS = (0.85, 0.90, 0.95, 0.99)
"""Shares of the table's hypervolume."""
RESAMPLES = 2_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Run:
    """One seed of one rival on one bed.

    shares: of the hypervolume, of what is fully trained, after each training to a rung.  spent:
    full trainings until then, one to a lower rung being the part of one that its steps are.
    seconds: of CPU, of its own arithmetic, all in all.
    """

    bed: str
    rival: str
    seed: int
    shares: tuple[float, ...]
    spent: tuple[float, ...]
    seconds: float

    def trainings(self, target: float) -> float:
        """How many full trainings a share took; infinitely many where it was not reached."""
        reached = zip(self.shares, self.spent, strict=True)
        return next((spent for share, spent in reached if share >= target - 1e-9), math.inf)


def run(bed: Bed, name: str, rival: Rival, seed: int, most: int) -> Run:
    """Train until the last target is reached, nothing is left, or so much has been trained."""
    began = time.process_time()
    scoring = 0.0
    reached: dict[int, int] = {}
    rows: list[int] = []
    shares: list[float] = []
    steps: list[int] = []
    for row, rung in rival(bed, seed):
        before = time.process_time()
        known = bed.steps[reached[row]] if row in reached else 0
        steps.append((steps[-1] if steps else 0) + bed.steps[rung] - known)
        reached[row] = rung
        if rung == bed.top:
            rows.append(row)
        shares.append(bed.share(rows) if rows else 0.0)
        scoring += time.process_time() - before
        if shares[-1] >= TARGETS[-1] or steps[-1] >= most * bed.steps[-1]:
            break
    seconds = time.process_time() - began - scoring
    spent = tuple(count / bed.steps[-1] for count in steps)
    return Run(bed.name, name, seed, tuple(shares), spent, seconds)


def replayed(task: tuple[Path, str, str, int, int]) -> Run:
    """``run`` from plain values, for another process: folder, bed, rival, seed, most trainings."""
    folder, bed, rival, seed, most = task
    return run(_bed(folder, bed), rival, ALL[rival], seed, most)


@cache
def _bed(folder: Path, name: str) -> Bed:
    return load_beds(folder, [name])[0]


@dataclass(frozen=True)
class Summary:
    """What all seeds of a rival show for one target on one bed.

    ratio: the median over seeds of another's trainings to the rival's, more is better, 0 where the
    rival never arrived; low and high are its bootstrap interval.
    """

    trainings: float
    failures: int
    ratio: float
    low: float
    high: float


def summarise(runs: Sequence[Run], others: Mapping[int, Run], target: float) -> Summary:
    """Of runs of one rival on one bed, paired by seed with another's."""
    needed = np.array([run.trainings(target) for run in runs])
    compared = np.array([others[run.seed].trainings(target) for run in runs])
    # where neither arrives in the trainings there were, nothing is known of their ratio
    known = np.isfinite(needed) | np.isfinite(compared)
    ratios = np.where(np.isfinite(needed), compared, 0.0)
    ratios = ratios / np.where(np.isfinite(needed), needed, 1.0)
    low, ratio, high = _interval(ratios[known])
    return Summary(float(np.median(needed)), int(np.isinf(needed).sum()), ratio, low, high)


def _interval(ratios: np.ndarray) -> tuple[float, float, float]:
    if not len(ratios):
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail), method="inverted_cdf")
    return float(low), float(np.median(ratios)), float(high)
