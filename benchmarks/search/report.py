"""What runs on a bed show: a table for readers, and the same numbers for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.search.replay import CONFIDENCE, TARGETS, Run, Summary, summarise
from benchmarks.search.rivals import BASELINE, OURS

COMPARED = 0.95
"""The target at which ours is compared with each rival."""
WIDTHS = (12, 12, 12, 12, 20, 20, 20, 8)
"""Of the columns after the first."""


def table(bed: str, runs: Sequence[Run]) -> list[str]:
    """One row a rival: trainings to each target with failures, and the ratios."""
    by_rival = _by_rival(bed, runs)
    ours = _ours(by_rival)
    seeds = len({run.seed for run in runs if run.bed == bed})
    targets = [f"{target:.0%}" for target in TARGETS]
    against = [f"vs random {target}" for target in targets[2:]]
    lines = [
        f"{bed}, {seeds} seeds: median full trainings to a share of the hypervolume (never "
        f"arrived); times fewer than random, and times fewer that {ours or 'ours'} needs, "
        f"{CONFIDENCE:.0%} intervals; CPU seconds a run",
        _line("rival", [*targets, *against, f"ours {COMPARED:.0%}", "s/run"]),
        _line("-" * 28, ["-" * width for width in WIDTHS]),
    ]
    for name, mine in by_rival.items():
        found = [summarise(list(mine.values()), by_rival[BASELINE], t) for t in TARGETS]
        cells = [*map(_trainings, found), *map(_ratio, found[2:])]
        cells.append(_ratio(_compared(by_rival[ours], mine)) if ours and name != ours else "-")
        cells.append(f"{median(run.seconds for run in mine.values()):.2f}")
        lines.append(_line(name, cells))
    return lines


def document(runs: Sequence[Run]) -> dict[str, Any]:
    """All runs, and of each bed, rival and target the summary against random search and ours."""
    return {"runs": [asdict(run) for run in runs], "summaries": list(_summaries(runs))}


def _summaries(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for bed in dict.fromkeys(run.bed for run in runs):
        by_rival = _by_rival(bed, runs)
        others = [name for name in (BASELINE, _ours(by_rival)) if name]
        for name, mine in by_rival.items():
            for target in TARGETS:
                for other in others:
                    summary = asdict(summarise(list(mine.values()), by_rival[other], target))
                    # JSON has neither infinity nor NaN
                    finite = {k: v if math.isfinite(v) else None for k, v in summary.items()}
                    yield {"bed": bed, "rival": name, "target": target, "against": other, **finite}


def _by_rival(bed: str, runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs on a bed by rival and seed."""
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        if run.bed == bed:
            found.setdefault(run.rival, {})[run.seed] = run
    return found


def _ours(by_rival: Mapping[str, Mapping[int, Run]]) -> str | None:
    """What the service does by default, with rungs where it has run with them."""
    return next((name for name in reversed(OURS) if name in by_rival), None)


def _compared(ours: Mapping[int, Run], theirs: Mapping[int, Run]) -> Summary:
    """Ours against a rival, on the seeds that it has run."""
    return summarise([ours[seed] for seed in theirs if seed in ours], theirs, COMPARED)


def _line(name: str, cells: Sequence[str]) -> str:
    aligned = (f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return f"| {name:<28} | " + " | ".join(aligned) + " |"


def _trainings(summary: Summary) -> str:
    needed = "never" if math.isinf(summary.trainings) else f"{summary.trainings:.4g}"
    return f"{needed} ({summary.failures})" if summary.failures else needed


def _ratio(summary: Summary) -> str:
    if math.isnan(summary.ratio):
        return "-"
    return f"{summary.ratio:.1f} [{summary.low:.1f}, {summary.high:.1f}]"
