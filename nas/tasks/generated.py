"""Synthetic sequences drawn from a seed: training never ends, the held-out sets are fixed.

Letters: B batch, N sequence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nas.catalogue.tasks import GeneratedTaskConfig
from nas.tasks.base import Batch, HeldOut
from nas.tasks.sampling import Indices, spread_batches
from search_spaces.errors import InvalidInput, Problem

TRAINING, VALIDATION, TEST = range(3)
"""Which stream of random numbers a part is drawn from."""
DRAWN_AT_ONCE = 64


class Sequences(NamedTuple):
    """Tokens and targets (B, N) int64; one that does not count is ``nas.tasks.base.IGNORED``."""

    tokens: Indices
    targets: Indices


Draw: TypeAlias = Callable[[np.random.Generator, int], Sequences]
"""Draws B sequences."""


class GeneratedTask:
    """A task whose sequences are drawn when they are wanted.

    answers: how many targets there can be; each is as likely as another.
    """

    def __init__(self, config: GeneratedTaskConfig, draw: Draw, answers: int) -> None:
        self.config = config
        self.shape = config.shape()
        self.trivial_loss = math.log(answers)
        self._draw = draw

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the validation sequences, by which another generator would show."""
        digest = hashlib.sha256(self.config.name.encode())
        for array in self._validation:
            digest.update(array.astype("<i8").data)
        return digest.hexdigest()

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """B new sequences."""
        return _batch(self._draw(np.random.default_rng((TRAINING, seed, step)), batch_size))

    def evaluation_batches(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[Batch]:
        """Sequences spread over the part."""
        tokens, targets = self._validation if split == "validation" else self._test
        for chosen in spread_batches(len(tokens), batch_size, limit):
            yield _batch(Sequences(tokens[chosen], targets[chosen]))

    @cached_property
    def _validation(self) -> Sequences:
        return self._drawn((VALIDATION,), self.config.evaluation_examples)

    @cached_property
    def _test(self) -> Sequences:
        return self._drawn((TEST,), self.config.evaluation_examples)

    def _drawn(self, seed: tuple[int, ...], count: int) -> Sequences:
        """Many sequences, few at a time: what a draw needs meanwhile may be large."""
        rng = np.random.default_rng(seed)
        sizes = [min(DRAWN_AT_ONCE, count - start) for start in range(0, count, DRAWN_AT_ONCE)]
        parts = [self._draw(rng, size) for size in sizes]
        return Sequences(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def refuse_data(dataset: Path | None) -> None:
    """A task that makes its own data takes none.

    Raises:
        InvalidInput: a data file was given.
    """
    if dataset is not None:
        raise InvalidInput([Problem("/task/dataset", "this task takes no data of your own")])


def distinct(
    rng: np.random.Generator, rows: int, count: int, weights: NDArray[np.float64]
) -> Indices:
    """Draw ``count`` different places in each of ``rows`` rows, (rows, count), in random order.

    weights (places,): how likely each place is to be drawn next. The greatest of independently
    perturbed log weights are such a sample (Efraimidis and Spirakis 2006).
    """
    keys = np.log(weights) + rng.gumbel(size=(rows, len(weights)))
    return np.argsort(-keys, axis=1, kind="stable")[:, :count]


def _batch(drawn: Sequences) -> Batch:
    return Batch(torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.targets))
