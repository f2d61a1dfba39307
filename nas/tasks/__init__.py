"""Proxy tasks: one file each, found by the name in their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.catalogue.tasks import TASKS, TaskConfig
from nas.tasks import (
    image_classification,
    listops,
    mqar,
    noisy_recall,
    selective_copying,
    text_classification,
    text_lm,
)
from nas.tasks.base import Batch, Task

__all__ = ["BUILDERS", "Batch", "Task", "build_task"]

BUILDERS: Mapping[str, Callable[[Any, Path | None, Path], Task]] = {
    "text_lm": text_lm.build,
    "text_classification": text_classification.build,
    "image_classification": image_classification.build,
    "listops": listops.build,
    "mqar": mqar.build,
    "selective_copying": selective_copying.build,
    "noisy_recall": noisy_recall.build,
}
if BUILDERS.keys() != TASKS.keys():
    raise RuntimeError(f"tasks without both halves: {sorted(BUILDERS.keys() ^ TASKS.keys())}")


def build_task(config: TaskConfig, *, dataset: Path | None, cache: Path) -> Task:
    """The data of a task, ready to train on.

    dataset: a user's own file, for tasks that take one.  cache: a folder for what is made once.

    Raises:
        InvalidInput: the data cannot be used with these settings.
        DataUnavailable: the data are missing, damaged or cannot be read.
    """
    return BUILDERS[config.name](config, dataset, cache)
