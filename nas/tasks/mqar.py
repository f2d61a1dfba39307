"""Multi-query associative recall: after a list of keys with their values, name a key's value.

Two pairs in N = 12 tokens of a vocabulary of 16, whose keys are 1–7 and values 8–15; ``·`` is a
target that does not count, and every other token a filler::

    tokens    3  9  6 12   2 14   6 11   8  1   3  5
    targets   ·  ·  ·  ·   ·  ·  12  ·   ·  ·   9  ·

The pairs come first. Each key comes once more, at an even distance from them that a power law
favours to be small. Fillers are drawn from all of the vocabulary.
Source: Arora et al. 2023, "Zoology", arXiv:2312.04927.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.catalogue.tasks import Mqar
from nas.tasks.base import IGNORED
from nas.tasks.generated import GeneratedTask, Sequences, distinct, refuse_data

POWER = 0.01
"""Of the law by which distances are drawn: gap g has weight g^(POWER - 1)."""


def build(config: Mqar, dataset: Path | None, cache: Path) -> GeneratedTask:
    """The task of these settings.

    Raises:
        InvalidInput: a data file was given.
    """
    refuse_data(dataset)
    values = config.vocab_size - config.vocab_size // 2
    return GeneratedTask(config, lambda rng, count: draw(rng, count, config), values)


def draw(rng: np.random.Generator, count: int, config: Mqar) -> Sequences:
    """Draw ``count`` sequences."""
    pairs, length = config.pairs, config.sequence_length
    middle = config.vocab_size // 2
    keys = 1 + distinct(rng, count, pairs, np.ones(middle - 1))
    values = middle + distinct(rng, count, pairs, np.ones(config.vocab_size - middle))
    tokens = rng.integers(0, config.vocab_size, (count, length))
    tokens[:, : 2 * pairs : 2] = keys
    tokens[:, 1 : 2 * pairs : 2] = values
    targets = np.full((count, length), IGNORED, dtype=np.int64)
    gaps = np.arange(1, (length - 2 * pairs) // 2 + 1, dtype=np.float64)
    places = 2 * pairs + 2 * distinct(rng, count, pairs, gaps ** (POWER - 1))
    rows = np.arange(count)[:, None]
    tokens[rows, places] = keys
    targets[rows, places] = values
    return Sequences(tokens, targets)
