"""`python -m benchmarks.search.contenders NAME DEADLINE SEED FOLDER`: one search in real time.

It lasts until the deadline, in seconds since the epoch.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.search.contenders import CONTENDERS


def main() -> None:
    """One search. Only the one that is asked for is imported: it pays for what it needs itself."""
    parser = argparse.ArgumentParser(prog="benchmarks.search.contenders", description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("deadline", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    contender = importlib.import_module(f"benchmarks.search.contenders.{given.name}")
    contender.search(given.deadline, given.seed, given.folder.resolve())


if __name__ == "__main__":
    main()
