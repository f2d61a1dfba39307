"""`make bench-search BEDS=FOLDER`: strategies replayed on tables of trained architectures.

For each bed a table: full trainings that each rival needs for 85, 90, 95 and 99 % of the
hypervolume of the whole table, how many times fewer that is than random search needs with the same
seeds, and how many times fewer the service's own default needs. The reference point is a tenth
worse than the worst of the table, the cost on a log scale. Every training counts, one to a lower
rung by its share of the steps; the front counts what is fully trained; no row is trained twice; a
run that never arrives counts as a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.search.beds import BEDS, Bed, load_beds
from benchmarks.search.plot import draw
from benchmarks.search.replay import Run, replayed
from benchmarks.search.report import document, table
from benchmarks.search.rivals import (
    ABLATIONS,
    ABLATIONS_WITH_RUNGS,
    ALL,
    BASELINE,
    RIVALS,
    WITH_RUNGS,
)
from benchmarks.search.tables import TableMissing


def main() -> None:
    """Run, print the tables, and write what was asked for."""
    options = arguments(sys.argv[1:])
    beds = found(options)
    os.environ["OMP_NUM_THREADS"] = "1"
    runs: list[Run] = []
    # spawned, so that no process inherits threads of numerical libraries
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for bed in beds:
            todo = [(options.folder, bed.name, *task) for task in tasks(options, bed)]
            runs += pool.map(replayed, todo)
            print("\n".join(table(bed.name, runs)), end="\n\n", flush=True)
            if options.json:
                options.json.write_text(json.dumps(document(runs)))
    if options.plot:
        draw(runs, options.plot)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.search", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the tables are")
    parser.add_argument("--beds", nargs="+", choices=BEDS, help="by default all that are there")
    parser.add_argument("--rivals", nargs="+", choices=ALL, help="by default all but ablations")
    parser.add_argument("--ablations", action="store_true", help="those of pareto as well")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trainings", type=int, default=200, help="at most, but for random")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the runs are written to")
    parser.add_argument("--plot", type=Path, help="where the picture (PNG) is written to")
    return parser.parse_args(given)


def found(options: argparse.Namespace) -> list[Bed]:
    """The beds asked for; by default those whose tables are there, the others being named."""
    beds: list[Bed] = []
    for name in options.beds or BEDS:
        try:
            beds += load_beds(options.folder, [name])
        except TableMissing as missing:
            if options.beds:
                raise SystemExit(str(missing)) from missing
            print(f"{name}: {missing}", file=sys.stderr)
    if not beds:
        raise SystemExit(f"{options.folder} has no table")
    return beds


def tasks(options: argparse.Namespace, bed: Bed) -> list[tuple[str, int, int]]:
    """Rival, seed and most trainings of each run; random search may train the whole table."""
    rivals = RIVALS | WITH_RUNGS if bed.top else RIVALS
    ablations = ABLATIONS | ABLATIONS_WITH_RUNGS if bed.top else ABLATIONS
    wanted = [*(options.rivals or rivals), *(ablations if options.ablations else ()), BASELINE]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return [
        (name, seed, sys.maxsize if name == BASELINE else options.trainings)
        for name in dict.fromkeys(wanted)
        if name in rivals | ablations
        for seed in seeds
    ]


if __name__ == "__main__":
    main()
