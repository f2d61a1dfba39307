"""The share of the hypervolume by training, a panel for each bed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.search.replay import Run
from nas.search.pareto import Floats

LEAST = 0.7
"""Shares below are not shown."""


def draw(runs: Sequence[Run], path: Path) -> None:
    """Median over seeds, and between the quartiles, as a PNG."""
    beds = list(dict.fromkeys(run.bed for run in runs))
    figure = Figure(figsize=(5.2 * min(2, len(beds)), 3.6 * -(-len(beds) // 2)), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(-(-len(beds) // 2), min(2, len(beds)), squeeze=False).ravel()
    for axis, bed in zip(axes, beds, strict=False):
        of_bed = [run for run in runs if run.bed == bed]
        for name in dict.fromkeys(run.rival for run in of_bed):
            spent, (low, middle, high) = quartiles([run for run in of_bed if run.rival == name])
            (line,) = axis.plot(spent, middle, label=name, drawstyle="steps-post")
            axis.fill_between(
                spent, low, high, color=line.get_color(), alpha=0.15, lw=0, step="post"
            )
        axis.set(title=bed, xscale="log", xlim=(1, None), ylim=(LEAST, 1))
        axis.set_xlabel("full trainings")
        axis.set_ylabel("share of the hypervolume")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small")
    for axis in axes[len(beds) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=150)


def quartiles(runs: Sequence[Run]) -> tuple[Floats, Floats]:
    """Full trainings (n,) and shares (3, n); a run that ended keeps its last share."""
    spent = np.unique([x for run in runs for x in run.spent])
    shares = np.zeros((len(runs), len(spent)))
    for row, run in zip(shares, runs, strict=True):
        last = np.searchsorted(run.spent, spent, side="right") - 1
        row[:] = np.where(last >= 0, np.array(run.shares)[np.maximum(last, 0)], 0.0)
    return spent, np.asarray(np.quantile(shares, (0.25, 0.5, 0.75), axis=0))
