"""The share of the hypervolume by trainings, a panel for each bed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.search.replay import Run

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
            low, middle, high = _quartiles([run for run in of_bed if run.rival == name])
            trainings = np.arange(1, len(middle) + 1)
            (line,) = axis.plot(trainings, middle, label=name)
            axis.fill_between(trainings, low, high, color=line.get_color(), alpha=0.15, lw=0)
        axis.set(title=bed, xscale="log", ylim=(LEAST, 1), xlabel="trainings")
        axis.set_ylabel("share of the hypervolume")
        axis.grid(alpha=0.3)
    for axis in axes[len(beds) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _quartiles(runs: Sequence[Run]) -> np.ndarray:
    """(3, trainings); a run that ended keeps its last share."""
    longest = max(len(run.shares) for run in runs)
    shares = [(*run.shares, *run.shares[-1:] * (longest - len(run.shares))) for run in runs]
    return np.asarray(np.quantile(np.array(shares), (0.25, 0.5, 0.75), axis=0))
