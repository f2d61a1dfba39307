"""Selective copying: repeat the tokens that stood among blanks, in their order.

Three of N = 12, of a vocabulary of 6: tokens 0–3, the blank 4, the signal 5. ``·`` is a target that
does not count::

    tokens    4  2  4  4  0  4  4  2  5  4  4  4
    targets   ·  ·  ·  ·  ·  ·  ·  ·  ·  2  0  2

Where the tokens stand is drawn uniformly, and new for each sequence: to copy by a fixed distance
does not do.
Source: Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures" (MAD),
arXiv:2403.17844.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.catalogue.tasks import SelectiveCopying
from nas.tasks.base import IGNORED
from nas.tasks.generated import GeneratedTask, Sequences, distinct, refuse_data


def build(config: SelectiveCopying, dataset: Path | None, cache: Path) -> GeneratedTask:
    """The task of these settings.

    Raises:
        InvalidInput: a data file was given.
    """
    refuse_data(dataset)
    tokens = config.vocab_size - 2
    return GeneratedTask(config, lambda rng, count: draw(rng, count, config), tokens)


def draw(rng: np.random.Generator, count: int, config: SelectiveCopying) -> Sequences:
    """Draw ``count`` sequences."""
    length, copied = config.sequence_length, config.copied
    blank, signal = config.vocab_size - 2, config.vocab_size - 1
    room = length - copied - 1
    chosen = rng.integers(0, blank, (count, copied))
    places = np.sort(distinct(rng, count, copied, np.ones(room)), axis=1)
    tokens = np.full((count, length), blank, dtype=np.int64)
    tokens[np.arange(count)[:, None], places] = chosen
    tokens[:, room] = signal
    targets = np.full((count, length), IGNORED, dtype=np.int64)
    targets[:, room + 1 :] = chosen
    return Sequences(tokens, targets)
