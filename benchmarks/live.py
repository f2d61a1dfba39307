"""`make bench-live`: the search in real time, the service beside what a user would else take.

Same space, task, training and seeds, two trials at a time, so many minutes each from before
anything of it has started: processes, data, calibration and asking are all in them. What counts is
the hypervolume of the fully trained architectures, over the wall clock. Its reference point is
fixed before: the loss of the best constant predictor, and the most parameters in a pool drawn from
the space, whose logarithm is scaled by the pool's range.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.search.contenders import CONTENDERS, SERVICE, Found, noted
from benchmarks.search.own_bed import SPACE, TRAINING, the_task
from nas.costs import known_costs
from nas.search.pareto import Floats, Scale, hypervolume
from search_spaces import load_space
from workers.cluster import LEAN_RAY
from workers.screening import draw_pool

POOL_SEED = 0
MOMENTS = (0.25, 0.5, 1.0)
"""Shares of the time at which the hypervolume is told."""
WIDTHS = (13, 12, 12, 12, 22)
"""Of the columns after the first."""


@dataclass(frozen=True)
class Run:
    """One contender with one seed: hypervolume (n,) when the nth was fully trained, ascending."""

    contender: str
    seed: int
    seconds: list[float]
    volumes: list[float]

    def volume(self, at: float) -> float:
        """The hypervolume at a time in seconds."""
        known = int(np.searchsorted(self.seconds, at, side="right"))
        return self.volumes[known - 1] if known else 0.0

    def reached(self, volume: float) -> float:
        """Seconds until a hypervolume; infinitely many where it was not reached."""
        arrived = zip(self.seconds, self.volumes, strict=True)
        return next((at for at, reached in arrived if reached >= volume), math.inf)


def main() -> None:
    """Run all, seed by seed, then print and write."""
    options = arguments()
    seconds = 60.0 * options.minutes
    scales = reference()
    runs: list[Run] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        # who comes first changes, lest the machine's mood follow the order
        turn = seed % len(options.contenders)
        for name in (*options.contenders[turn:], *options.contenders[:turn]):
            runs.append(measured(name, seed, seconds, scales))
            print(f"{name}, seed {seed}: {len(runs[-1].seconds)} fully trained", flush=True)
    print("\n".join(table(runs, seconds)))
    if options.json:
        options.json.write_text(json.dumps([asdict(run) for run in runs]))
    if options.plot:
        draw(runs, seconds, options.plot)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.live", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", type=Path, help="where the runs are written to")
    parser.add_argument("--plot", type=Path, help="where the picture (PNG) is written to")
    return parser.parse_args()


def reference() -> tuple[Scale, Scale]:
    """Scales of loss and parameters, from 0, the best, to 1, the reference point."""
    with tempfile.TemporaryDirectory(prefix="live-") as folder:
        task = the_task(Path(folder))
        shape, trivial = task.shape, task.trivial_loss
    pool = draw_pool(load_space(SPACE), POOL_SEED)
    sizes = [known_costs(arch, shape, TRAINING.batch_size)["parameters"] for arch in pool]
    return Scale(0.0, trivial), Scale(min(sizes), max(sizes), log=True)


def measured(name: str, seed: int, seconds: float, scales: tuple[Scale, Scale]) -> Run:
    """One run, from before its process starts; what ended too late is left out."""
    folder = Path(tempfile.mkdtemp(prefix="live-"))
    began = time.time()
    given = [name, str(began + seconds), str(seed), str(folder)]
    command = [sys.executable, "-m", "benchmarks.search.contenders", *given]
    try:
        # its own log is not the table
        subprocess.run(command, env={**os.environ, **LEAN_RAY}, stdout=sys.stderr, check=True)
        found = [each for each in noted(folder) if each.at <= began + seconds]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ordered = sorted(found, key=lambda each: each.at)
    at = [each.at - began for each in ordered]
    return Run(name, seed, at, volumes(ordered, scales))


def volumes(found: Sequence[Found], scales: tuple[Scale, Scale]) -> list[float]:
    """The hypervolume each time that another is fully trained."""
    loss, size = scales
    points = [(loss.scaled(each.loss), size.scaled(each.parameters)) for each in found]
    return [hypervolume(points[: n + 1], (1.0, 1.0)) for n in range(len(points))]


def table(runs: Sequence[Run], seconds: float) -> list[str]:
    """One row a contender, medians over seeds."""
    ours = {run.seed: run for run in runs if run.contender == SERVICE}
    moments = [f"at {moment * seconds:.0f} s" for moment in MOMENTS]
    lines = [
        f"hypervolume, {len({run.seed for run in runs})} seeds, medians; seconds (never arrived) "
        "after which the service had what the contender had in the end",
        _line("contender", ["fully trained", *moments, "service had that after"]),
        _line("-" * 20, ["-" * width for width in WIDTHS]),
    ]
    for name in dict.fromkeys(run.contender for run in runs):
        mine = [run for run in runs if run.contender == name]
        cells = [f"{median(len(run.seconds) for run in mine):g}"]
        cells += [f"{median(run.volume(m * seconds) for run in mine):.4f}" for m in MOMENTS]
        after = [ours[run.seed].reached(run.volume(seconds)) for run in mine if run.seed in ours]
        cells.append(_seconds(after) if after and name != SERVICE else "-")
        lines.append(_line(name, cells))
    return lines


def draw(runs: Sequence[Run], seconds: float, path: Path) -> None:
    """Median over seeds, and between the least and the most, as a PNG."""
    figure = Figure(figsize=(6.4, 4.0), layout="tight")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    at = np.linspace(0.0, seconds, 400)
    for name in dict.fromkeys(run.contender for run in runs):
        reached = curves([run for run in runs if run.contender == name], at)
        (line,) = axis.plot(at, np.median(reached, axis=0), label=name)
        low, high = reached.min(axis=0), reached.max(axis=0)
        axis.fill_between(at, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axis.set(xlabel="seconds since the start", ylabel="hypervolume of the fully trained")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=150)


def curves(runs: Sequence[Run], at: Floats) -> Floats:
    """Hypervolume (runs, times)."""
    return np.array([[run.volume(moment) for moment in at] for run in runs])


def _seconds(values: Sequence[float]) -> str:
    """The median, and how many never arrived."""
    middle, never = median(values), sum(map(math.isinf, values))
    said = "never" if math.isinf(middle) else f"{middle:.0f} s"
    return f"{said} ({never})" if never else said


def _line(name: str, cells: Sequence[str]) -> str:
    aligned = (f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return f"| {name:<20} | " + " | ".join(aligned) + " |"


if __name__ == "__main__":
    main()
