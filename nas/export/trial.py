"""A trial as export formats are given it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.schemas import Bill, Front
from nas.training.config import TrainingConfig


@dataclass(frozen=True)
class ExportedTrial:
    """What there is of a trial.

    checkpoint: for its weights.  labels: the names of its task's classes, in their order, where
    they are known.  front, bill: of its job, for people to read.
    """

    document: TrainingConfig
    checkpoint: Path | None = None
    labels: tuple[str, ...] | None = None
    front: Front | None = None
    bill: Bill | None = None
