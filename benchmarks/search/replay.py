"""Runs on a table: how many trainings a rival needs, and how that compares with random search."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.search.beds import Bed, load_beds
from benchmarks.search.rivals import ALL, BASELINE, Rival

TARGETS = (0.85, 0.90, 0.95, 0.99)
"""Shares of the table's hypervolume."""
RESAMPLES = 2_000
CONFIDENCE = 0.95
WIDTHS = (10, 10, 10, 10, 18, 18, 7)
"""Of the columns after the first."""


@dataclass(frozen=True)
class Run:
    """One seed of one rival on one bed.

    shares: of the hypervolume, after each training.  seconds: of its own arithmetic, all in all.
    """

    bed: str
    rival: str
    seed: int
    shares: tuple[float, ...]
    seconds: float

    def trainings(self, target: float) -> float:
        """How many it took to reach a share; infinitely many where it did not."""
        arrived = (n for n, share in enumerate(self.shares, 1) if share >= target - 1e-9)
        return next(arrived, math.inf)


def run(bed: Bed, name: str, rival: Rival, seed: int, most: int) -> Run:
    """Train until the last target is reached, nothing is left, or so many have been trained."""
    began = time.process_time()
    rows: list[int] = []
    shares: list[float] = []
    scoring = 0.0
    for row in itertools.islice(rival(bed, seed), most):
        rows.append(row)
        before = time.process_time()
        shares.append(bed.share(rows))
        scoring += time.process_time() - before
        if shares[-1] >= TARGETS[-1]:
            break
    seconds = time.process_time() - began - scoring
    return Run(bed.name, name, seed, tuple(shares), seconds)


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

    ratio: the median over seeds of random search's trainings to the rival's, more is better, 0
    where the rival never arrived; low and high are its bootstrap interval.
    """

    trainings: float
    failures: int
    ratio: float
    low: float
    high: float


def summarise(runs: Sequence[Run], baseline: Mapping[int, Run], target: float) -> Summary:
    """Of runs of one rival on one bed, paired with random search by seed."""
    needed = np.array([run.trainings(target) for run in runs])
    random = np.array([baseline[run.seed].trainings(target) for run in runs])
    # where neither arrives in the trainings there were, nothing is known of their ratio
    known = np.isfinite(needed) | np.isfinite(random)
    ratios = np.where(np.isfinite(needed), random, 0.0) / np.where(np.isfinite(needed), needed, 1.0)
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


def table(bed: str, runs: Sequence[Run]) -> list[str]:
    """One row a rival: trainings to each target with failures, and the ratio against random."""
    of_bed = [run for run in runs if run.bed == bed]
    baseline = {run.seed: run for run in of_bed if run.rival == BASELINE}
    names = list(dict.fromkeys(run.rival for run in of_bed))
    seeds = len({run.seed for run in of_bed})
    targets = [f"{target:.0%}" for target in TARGETS]
    lines = [
        f"{bed}, {seeds} seeds: median trainings to a share of the hypervolume (never arrived); "
        f"times fewer than random, {CONFIDENCE:.0%} interval",
        _line("rival", [*targets, *(f"ratio {t}" for t in targets[2:]), "ms/ask"]),
        _line("-" * 24, ["-" * width for width in WIDTHS]),
    ]
    for name in names:
        mine = [run for run in of_bed if run.rival == name]
        found = [summarise(mine, baseline, target) for target in TARGETS]
        asks = sum(len(run.shares) for run in mine)
        spent = 1000 * sum(run.seconds for run in mine) / max(1, asks)
        cells = [_trainings(summary) for summary in found]
        lines.append(_line(name, [*cells, *map(_ratio, found[2:]), f"{spent:.1f}"]))
    return lines


def _line(name: str, cells: Sequence[str]) -> str:
    aligned = (f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return f"| {name:<24} | " + " | ".join(aligned) + " |"


def _trainings(summary: Summary) -> str:
    needed = "never" if math.isinf(summary.trainings) else f"{summary.trainings:g}"
    return f"{needed} ({summary.failures})" if summary.failures else needed


def _ratio(summary: Summary) -> str:
    if math.isnan(summary.ratio):
        return "-"
    return f"{summary.ratio:.1f} [{summary.low:.1f}, {summary.high:.1f}]"
