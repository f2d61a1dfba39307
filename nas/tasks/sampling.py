"""Which examples a batch holds, and what a constant predictor loses on them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def epoch_indices(step: int, batch_size: int, seed: int, examples: int) -> Indices:
    """Examples (B,) of a step: epochs follow each other, each in an order of its own.

    A batch may end one epoch and begin the next, so none is short.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs = positions // examples
    taken = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        taken[here] = _order(seed, int(epoch), examples)[positions[here] % examples]
    return taken


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, examples: int) -> Indices:
    order = np.random.default_rng((seed, epoch)).permutation(examples)
    order.setflags(write=False)
    return order


def spread_batches(count: int, batch_size: int, limit: int | None) -> Iterator[Indices]:
    """Indices below ``count`` in ascending batches: all of them, or evenly spaced ones.

    The last batch may be smaller. With a limit, at most limit · B indices.
    """
    wanted = count if limit is None else min(count, limit * batch_size)
    chosen = np.arange(wanted, dtype=np.int64) * count // wanted
    for start in range(0, wanted, batch_size):
        yield chosen[start : start + batch_size]


def frequency_loss(training: Indices, validation: Indices) -> float:
    """Nats per target of the predictor that always gives the training frequencies.

    training, validation: how often each class occurs. One is added to each training count, so that
    a class that only validation has costs a finite amount.
    """
    smoothed = training + 1.0
    log_probability = np.log(smoothed / smoothed.sum())
    return float(-(validation * log_probability).sum() / validation.sum())
