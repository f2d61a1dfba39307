"""The weights of a job's trials: where they are, and whose another may start from."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from nas.errors import CorruptCheckpoint
from nas.training.checkpoint import trim_checkpoint
from search_spaces import Architecture

log = structlog.get_logger()

LEAST_ALIKE = 0.5
"""Of the blocks of a child, the share that its parent must have in the same places."""

Frame: TypeAlias = tuple[Any, ...]
Blocks: TypeAlias = tuple[Any, ...]
"""What stands in each place: attention with its heads, and feed-forward, layer by layer."""


class Weights:
    """A checkpoint a trial, in one folder, and who has one.

    Only those of the same frame are relatives: width, depth, norm, residual and position fix the
    shapes and the sense of most weights.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trained: dict[Frame, dict[str, Blocks]] = defaultdict(dict)

    def of(self, trial: str) -> Path:
        """Where they are, or would be."""
        return self._folder / f"{trial}.pt"

    def trained(self, trial: str, architecture: Architecture) -> None:
        """This trial has weights now."""
        family = self._trained[_frame(architecture)]
        family.pop(trial, None)  # the latest come last
        family[trial] = _blocks(architecture)

    def closest(self, architecture: Architecture) -> str | None:
        """The relative with most of the same blocks in the same places, at least half of them;
        of those that are as close the latest."""
        blocks = _blocks(architecture)
        best, most = None, LEAST_ALIKE * len(blocks)
        for trial, others in self._trained[_frame(architecture)].items():
            alike = sum(a == b for a, b in zip(blocks, others, strict=True))
            if alike >= most:
                best, most = trial, alike
        return best

    def inheritance(
        self, trial: str | None, architecture: Architecture | None
    ) -> dict[str, str] | None:
        """What an actor needs to start a child from this trial; None: it starts from scratch."""
        if trial is None or architecture is None:
            return None
        document, checkpoint = architecture.canonical_json(), str(self.of(trial))
        return {"trial": trial, "architecture": document, "checkpoint": checkpoint}

    def drop(self, trial: str, architecture: Architecture) -> None:
        """It has failed."""
        self._trained[_frame(architecture)].pop(trial, None)
        self.of(trial).unlink(missing_ok=True)

    def trim(self, trial: str) -> None:
        """What will not be trained on keeps its weights alone."""
        try:
            trim_checkpoint(self.of(trial))
        except FileNotFoundError:
            return  # it never trained
        except (CorruptCheckpoint, OSError) as error:
            log.warning("checkpoint not trimmed", trial=trial, reason=str(error))


def _frame(architecture: Architecture) -> Frame:
    return (
        architecture.width,
        architecture.depth,
        architecture.norm,
        architecture.residual,
        architecture.position,
    )


def _blocks(architecture: Architecture) -> Blocks:
    return tuple(
        block
        for layer in architecture.layers
        for block in ((layer.attention, layer.heads), layer.feedforward)
    )
