"""Export formats by name: each writes one file from a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from nas.export import config
from nas.training.config import TrainingConfig

FORMATS: Mapping[str, Callable[[Path, TrainingConfig, Path | None], None]] = {
    "config": config.write,
}
