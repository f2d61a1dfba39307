"""Exports: what carries the winner of a search into training.

Reading an export (``unpack``, ``read_config``) needs no torch; writing one does.
"""

from __future__ import annotations

from pathlib import Path

from nas.errors import Unsupported
from nas.export.archive import unpack
from nas.export.trial import ExportedTrial
from nas.training.config import (
    Provenance,
    TrainingConfig,
    read_config,
    versions_here,
    write_config,
)

__all__ = [
    "ExportedTrial",
    "Provenance",
    "TrainingConfig",
    "read_config",
    "unpack",
    "versions_here",
    "write",
    "write_config",
]


def write(format_name: str, target: Path, trial: ExportedTrial) -> None:
    """Write an export of a trial to ``target``, whole or not at all.

    Raises:
        Unsupported: no such format, or one that cannot hold this trial.
        TrialFailed: the checkpoint is corrupt.
    """
    from nas.export.formats import FORMATS  # torch, which whoever only reads need not have

    if format_name not in FORMATS:
        raise Unsupported(f"no export format {format_name!r} (there is: {', '.join(FORMATS)})")
    FORMATS[format_name](target, trial)
