"""Searches in real time, one file each: the service, and what a user would else take.

All train members of one space on the task of our own bed, by the same segments, two at a time, and
note in a folder what they have fully trained, and when. What another's searcher proposes is a place
in the domain of each decision.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.search.own_bed import FIDELITY, SPACE, TRAINING, the_task
from nas.costs import known_costs
from nas.training.segment import Segment, run_segment
from search_spaces import Architecture, SearchSpace, load_space

SERVICE = "service"
CONTENDERS = (SERVICE, "ray_asha", "optuna_nsga2")
"""Modules of this package, each with ``search(deadline, seed, folder)``."""
SLOTS = 2
OBJECTIVES = QUALITY, COST = "loss", "parameters"
STEPS = FIDELITY.rungs()
FOUND = "found.jsonl"


@dataclass(frozen=True)
class Found:
    """A fully trained architecture, and when it was, in seconds since the epoch."""

    at: float
    loss: float
    parameters: float


def note(folder: Path, found: Found) -> None:
    """Add to what has been found."""
    with (folder / FOUND).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found)) + "\n")


def noted(folder: Path) -> list[Found]:
    """All that has been found."""
    path = folder / FOUND
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Found(**json.loads(line)) for line in lines]


class Proposal:
    """An architecture that another's searcher proposed, in training."""

    def __init__(self, places: Mapping[str, int], seed: int, folder: Path) -> None:
        self._seed = seed
        self._folder = folder
        self._task = the_task(folder / "cache")
        self._arch = decoded(load_space(SPACE), places)
        # proposals may come again, also at the same time
        self._checkpoint = folder / f"{uuid4().hex}.pt"
        self.parameters = known_costs(self._arch, self._task.shape, TRAINING.batch_size)[COST]

    def loss(self, steps: int) -> float:
        """Train on to so many steps; what is fully trained is noted."""
        segment = Segment(self._arch, TRAINING, STEPS[-1], steps, self._seed, self._checkpoint)
        loss = run_segment(segment, self._task).metrics[QUALITY]
        if steps == STEPS[-1]:
            note(self._folder, Found(time.time(), loss, self.parameters))
        return loss


def decoded(space: SearchSpace, places: Mapping[str, int]) -> Architecture:
    """The member of these places in the domains of its decisions.

    A value that is not legal after those before it gives way to the nearest that is.
    """
    domains = space.domains()

    def choose(name: str, legal: tuple[Any, ...]) -> Any:
        values = domains[name].values
        return min(legal, key=lambda value: abs(values.index(value) - places[name]))

    return space.walk(choose)
