"""Checkpoints: a model in training, in one file that is whole or absent."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.atomic import replacing
from nas.errors import CorruptCheckpoint, TrialFailed

VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training needs to go on as if it had never stopped.

    identity: of what is trained, on what, how and from where (see ``Trainer.identity``).
    optimizer: None once trimmed: the weights can still be used, the training cannot go on.
    notes: numbers that whoever trains wants back.
    memory: what a model that remembers the segment before has of the last one.
    """

    identity: str
    steps: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    notes: dict[str, float] = field(default_factory=dict)
    memory: tuple[Tensor | None, ...] | None = None

    def trimmed(self) -> Checkpoint:
        """Without what only training needs, two thirds of the file."""
        return replace(self, optimizer=None, memory=None)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it in place of what was there; killed on the way, the old one stays."""
    # into memory first: torch tells of a full disk by a RuntimeError, a file by an OSError
    content = io.BytesIO()
    torch.save({"version": VERSION, **vars(checkpoint)}, content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(path: Path, device: torch.device | None = None) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        CorruptCheckpoint: it cannot be read, or is not what was written.
        FileNotFoundError: there is none.
    """
    try:
        # torch.load does not look at the checksums that torch.save writes
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CorruptCheckpoint(
                f"corrupt checkpoint {path}: {damaged} does not match its checksum"
            )
        content = torch.load(path, map_location=device or "cpu", weights_only=True)
        if content.pop("version") != VERSION:
            raise TrialFailed(f"checkpoint {path} was written by another version")
        return Checkpoint(**content)
    except (
        zipfile.BadZipFile,
        zlib.error,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise CorruptCheckpoint(f"corrupt checkpoint {path}: {error}") from error


def trim_checkpoint(path: Path) -> None:
    """Drop what only training needs: for trials that will not go on.

    Raises:
        CorruptCheckpoint
        FileNotFoundError: there is none.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.optimizer is not None:
        save_checkpoint(path, checkpoint.trimmed())


def load_weights(path: Path) -> dict[str, Tensor]:
    """The model's weights in a checkpoint, by parameter name.

    Raises:
        CorruptCheckpoint
        FileNotFoundError: there is none.
    """
    return load_checkpoint(path).model
