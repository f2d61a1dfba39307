"""The project's own table: architectures of a space, with the loss of each at every rung.

JSON lines. The first says what fixes every result, each other one is a training, in the order in
which they ended. Lines are only ever added, so that a table whose writer was killed ends in half a
line at worst, which counts for nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.search.tables import Row, Segmented, TableMissing, TableSpace
from search_spaces import Architecture, SearchSpace, load_space

TABLE = "survey_lm.jsonl"
COMMITTED = Path(__file__).parents[1] / "beds" / TABLE
"""Where the table is that comes with the project."""
SEED = 0
"""Of the trainings that are compared; others repeat some of them, to show how far they vary."""


@dataclass(frozen=True)
class Recipe:
    """What fixes every result, and where the results were had.

    space: name@version.  task, training: as a job file has them.  steps: of each rung, ascending.
    revision: of the training loop.
    """

    space: str
    task: dict[str, Any]
    training: dict[str, Any]
    steps: list[int]
    data_hash: str
    trivial_loss: float
    revision: int
    machine: str
    versions: dict[str, str]
    licence: str


@dataclass(frozen=True)
class Curve:
    """One training: metrics and seconds at each rung that was reached, or why it failed.

    costs: those known before training.
    """

    number: int
    seed: int
    architecture: dict[str, Any]
    costs: dict[str, float]
    metrics: list[dict[str, float]]
    training_seconds: list[float]
    evaluation_seconds: list[float]
    error: str | None = None


class TableOfAnother(Exception):
    """The table was begun with another recipe; says what differs."""


def begin(path: Path, recipe: Recipe) -> list[Curve]:
    """Make a table ready to be added to; the trainings that it has already.

    Raises:
        TableOfAnother: it is there, and of another recipe.
    """
    if path.exists():
        whole = _whole(path)
        os.truncate(path, len(whole.encode()))
        if whole:
            known, curves = read(path)
            if differing := [n for n, v in asdict(recipe).items() if getattr(known, n) != v]:
                raise TableOfAnother(f"{path} has another {', '.join(differing)}")
            return curves
    path.parent.mkdir(parents=True, exist_ok=True)
    add(path, recipe)
    return []


def add(path: Path, line: Recipe | Curve) -> None:
    """Append one line; it is on disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(line)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> tuple[Recipe, list[Curve]]:
    """All that is in a table."""
    first, *others = _whole(path).splitlines()
    return Recipe(**json.loads(first)), [Curve(**json.loads(line)) for line in others]


def survey(folder: Path) -> TableSpace:
    """The table in a folder, else the one that comes with the project.

    Trainings that failed are no rows of it.

    Raises:
        TableMissing: there is neither.
    """
    path = folder / TABLE if (folder / TABLE).is_file() else COMMITTED
    if not path.is_file():
        raise TableMissing(
            f"{folder / TABLE} is not there. `python -m benchmarks.search.own_bed` makes it"
        )
    recipe, curves = read(path)
    space = load_space(recipe.space)
    compared = sorted(
        (c for c in curves if c.seed == SEED and c.error is None), key=lambda c: c.number
    )
    rows = [_row(space, curve) for curve in compared]
    return Segmented(rows, space.domains(), recipe.steps)


def _row(space: SearchSpace, curve: Curve) -> Row:
    architecture = Architecture.model_validate(curve.architecture)
    *lower, last = [{**curve.costs, **metrics} for metrics in curve.metrics]
    return Row(
        decisions=space.decisions(architecture),
        layers=[layer.model_dump_json() for layer in architecture.layers],
        descriptors=space.describe(architecture),
        metrics=last,
        lower=lower,
    )


def _whole(path: Path) -> str:
    """The text up to the end of its last whole line."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1]
