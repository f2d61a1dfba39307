"""`make bench-mechanisms`: every attention mechanism beside SDPA and beside public references.

One forward and one backward pass of a layer at batch 1, 4 heads of 64, fp32, one thread. All points
(mechanism, slot, implementation, length) are measured in one run, round after round, each round in
a new random order; the time of a point is the least CPU time of its rounds. Layers have their
projections, the same on every side; the time of four projections, measured in the same rounds, is
subtracted, so that what is shown is the mixing of heads.

Memory is the most bytes of tensors alive that a pass has made, projections and the gradients of
weights included, as ``LiveBytes`` counts them; scratch memory within a kernel is not seen.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import torch

from benchmarks.mechanism_runs import D, H, measure_all, subjects
from benchmarks.mechanism_tables import draw, tables
from benchmarks.references import LONGEST, SHORTEST
from search_spaces.attention import ATTENTION

LENGTHS = tuple(2**power for power in range(9, 14))


def main() -> None:
    """Measure, print the tables, draw the plot."""
    options = _options()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the references
    chosen = subjects(options.mechanisms)
    points = [(s, N) for s in chosen for N in options.lengths if s.shortest <= N <= s.longest]
    began = time.monotonic()
    results = measure_all(points, options.rounds, 60 * options.minutes)
    minutes = (time.monotonic() - began) / 60
    rounds = [seen.rounds for seen in results.values()]
    if not any(rounds):
        raise SystemExit("time was up before anything was measured")
    print(
        f"batch 1, {H} heads of {D // H}, fp32, 1 thread, torch {torch.__version__}; "
        f"{min(rounds)} to {max(rounds)} rounds in {minutes:.1f} min"
    )
    print()
    print(tables(results, options.lengths))
    if options.plot:
        draw(results, options.lengths, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--mechanisms", nargs="+", choices=list(ATTENTION), default=list(ATTENTION), metavar="NAME"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=LENGTHS,
        metavar="N",
        help=f"multiples of {SHORTEST}, at most {LONGEST}",
    )
    parser.add_argument("--rounds", type=int, default=5, help="at most")
    parser.add_argument("--minutes", type=float, default=17, help="no pass begins after these")
    parser.add_argument("--plot", type=Path, help="PNG to write: docs/images/mechanisms.png")
    options = parser.parse_args()
    options.lengths = sorted(set(options.lengths))
    if any(N % SHORTEST or not SHORTEST <= N <= LONGEST for N in options.lengths):
        parser.error(f"lengths are multiples of {SHORTEST}, at most {LONGEST}: {options.lengths}")
    return options


if __name__ == "__main__":
    main()
