"""Classification of whole sequences: batches, padding and the trivial loss, whatever the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nas.catalogue.tasks import TaskConfig
from nas.tasks.base import Batch, HeldOut
from nas.tasks.sampling import Indices, epoch_indices, frequency_loss, spread_batches

Part: TypeAlias = Literal["train", "validation", "test"]

PADDING = 0
PAD_TO = 32
"""Padded lengths are multiples of this, so that few different shapes occur."""


@dataclass(frozen=True)
class Examples:
    """Sequences of different lengths laid end to end.

    tokens: all sequences.  bounds: (n + 1,), where each begins and the last ends.
    targets: (n,) classes.
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    bounds: NDArray[np.int64]
    targets: NDArray[np.unsignedinteger[Any]]

    def __len__(self) -> int:
        return len(self.targets)

    def digest(self) -> bytes:
        """SHA-256 of the content."""
        digest = hashlib.sha256()
        for array in (self.bounds.astype("<i8"), self.targets, self.tokens):
            digest.update(np.ascontiguousarray(array).data)
        return digest.digest()


class ExampleTask:
    """A task over three disjoint sets of examples."""

    def __init__(self, config: TaskConfig, parts: Mapping[Part, Examples]) -> None:
        self.config = config
        self.shape = config.shape()
        self._parts = dict(parts)
        named = sorted(self._parts.items())
        self.data_hash = hashlib.sha256(
            b"".join(name.encode() + examples.digest() for name, examples in named)
        ).hexdigest()
        self.trivial_loss = frequency_loss(
            self._class_counts("train"), self._class_counts("validation")
        )

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The next B examples of the shuffled epochs."""
        examples = self._parts["train"]
        return self._batch(examples, epoch_indices(step, batch_size, seed, len(examples)))

    def evaluation_batches(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[Batch]:
        """Examples spread over the part, in its order."""
        examples = self._parts[split]
        for chosen in spread_batches(len(examples), batch_size, limit):
            yield self._batch(examples, chosen)

    def _batch(self, examples: Examples, chosen: Indices) -> Batch:
        starts, ends = examples.bounds[chosen], examples.bounds[chosen + 1]
        lengths = ends - starts
        padded = min(-(-int(lengths.max()) // PAD_TO) * PAD_TO, self.shape.sequence_length)
        tokens = np.full((len(chosen), padded), PADDING, dtype=np.int64)
        for row, start, end in zip(tokens, starts, ends, strict=True):
            row[: end - start] = examples.tokens[start:end]
        targets = torch.from_numpy(examples.targets[chosen].astype(np.int64))
        if (lengths == padded).all():
            return Batch(torch.from_numpy(tokens), targets)
        return Batch(
            torch.from_numpy(tokens),
            targets,
            torch.from_numpy(np.arange(padded) < lengths[:, None]),
        )

    def _class_counts(self, part: Part) -> Indices:
        return np.bincount(self._parts[part].targets, minlength=self.shape.num_outputs)
