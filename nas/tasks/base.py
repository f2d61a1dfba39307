"""What a task gives: batches of integers, the shape of its model, and a hash of its data.

Letters: B batch, N sequence. A batch of a language model over bytes, B = 1, N = 4, of the text
``b"a = 1"``::

    tokens  [[97, 32, 61, 32]]          targets [[32, 61, 32, 49]]          mask None

and one of a classifier, B = 2, N = 3, whose second example is one token shorter::

    tokens  [[11, 4, 2], [5, 7, 0]]     targets [3, 9]      mask [[1, 1, 1], [1, 1, 0]]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from nas.catalogue.tasks import TaskConfig, TaskShape

IGNORED = -100
"""A target that counts neither for the loss nor for the accuracy."""

HeldOut: TypeAlias = Literal["validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Tokens (B, N) int64, targets (B, N) or (B,) int64, mask (B, N) bool, True where valid."""

    tokens: Tensor
    targets: Tensor
    mask: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), mask)

    def filled(self, batch_size: int, length: int) -> Batch:
        """A batch of just this size: its rows again where it has fewer, padding where shorter."""
        rows = torch.arange(batch_size, device=self.tokens.device) % self.tokens.shape[0]
        missing = length - self.tokens.shape[1]
        targets = self.targets[rows]
        if not missing:
            return Batch(self.tokens[rows], targets, None if self.mask is None else self.mask[rows])
        valid = torch.ones_like(self.tokens, dtype=torch.bool) if self.mask is None else self.mask
        if targets.dim() == 2:
            targets = pad(targets, (0, missing), value=IGNORED)
        return Batch(pad(self.tokens[rows], (0, missing)), targets, pad(valid[rows], (0, missing)))


class Task(Protocol):
    """Data with a split, ready to train on. The test split judges what was chosen, once."""

    @property
    def config(self) -> TaskConfig:
        """The settings that it was built from."""

    @property
    def shape(self) -> TaskShape:
        """What a model for it must take and give."""

    @property
    def data_hash(self) -> str:
        """SHA-256, in hex, of the data and of how they are split."""

    @property
    def trivial_loss(self) -> float:
        """Validation loss, in nats, of the best constant predictor: training frequencies."""

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a step (from 0). Nothing is remembered: same arguments, same batch."""

    def evaluation_batches(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[Batch]:
        """At most ``limit`` batches, always the same ones, spread evenly over the split."""
