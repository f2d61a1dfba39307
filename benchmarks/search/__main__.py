"""`make bench-search BEDS=FOLDER`: strategies replayed on tables of trained architectures.

For each bed a table: trainings that each rival needs for 85, 90, 95 and 99 % of the hypervolume of
the whole table, and how many times fewer that is than random search needs with the same seeds. The
reference point is a tenth worse than the worst of the table, the cost on a log scale. Every
training counts, no row is trained twice, a run that never arrives counts as a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from benchmarks.search.beds import BEDS, TableMissing, load_beds
from benchmarks.search.plot import draw
from benchmarks.search.replay import Run, replayed, table
from benchmarks.search.rivals import ABLATIONS, ALL, BASELINE, RIVALS


def main() -> None:
    """Run, print the tables, and write what was asked for."""
    options = arguments(sys.argv[1:])
    try:
        load_beds(options.folder, options.beds)
    except TableMissing as missing:
        raise SystemExit(str(missing)) from missing
    os.environ["OMP_NUM_THREADS"] = "1"
    runs: list[Run] = []
    # spawned, so that no process inherits threads of numerical libraries
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for bed in options.beds:
            runs += pool.map(replayed, [(options.folder, bed, *task) for task in tasks(options)])
            print("\n".join(table(bed, runs)), end="\n\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in runs]))
    if options.plot:
        draw(runs, options.plot)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.search", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the tables are")
    parser.add_argument("--beds", nargs="+", choices=BEDS, default=list(BEDS))
    parser.add_argument("--rivals", nargs="+", choices=ALL, default=list(RIVALS))
    parser.add_argument("--ablations", action="store_true", help="those of pareto as well")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trainings", type=int, default=200, help="at most, but for random")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the runs are written to")
    parser.add_argument("--plot", type=Path, help="where the picture (PNG) is written to")
    options = parser.parse_args(given)
    wanted = [*options.rivals, *(ABLATIONS if options.ablations else ())]
    options.rivals = list(dict.fromkeys((*wanted, BASELINE)))
    return options


def tasks(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Rival, seed and most trainings of each run; random search may train the whole table."""
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return [
        (name, seed, sys.maxsize if name == BASELINE else options.trainings)
        for name in options.rivals
        for seed in seeds
    ]


if __name__ == "__main__":
    main()
