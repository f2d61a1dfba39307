"""Noisy in-context recall: keys have values for one sequence, and noise comes between.

N = 12 of a vocabulary of 8: keys 0–1, values 2–3, noise 4–7. ``·`` is a target that does not
count::

    tokens    1  3  6  5  0  2  1  3  4  4  0  2
    targets   ·  ·  ·  ·  ·  ·  3  ·  ·  ·  2  ·

A sequence is made of pairs, each a key with its value or, at a fixed rate, two tokens of noise.
What a key stands for is drawn anew for each sequence, so only keys that were there before are asked
for. The last pair is always a key that was.
Source: Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures" (MAD),
arXiv:2403.17844.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.catalogue.tasks import NoisyRecall
from nas.tasks.base import IGNORED
from nas.tasks.generated import GeneratedTask, Sequences, refuse_data
from nas.tasks.sampling import Indices

Flags: TypeAlias = NDArray[np.bool_]


def build(config: NoisyRecall, dataset: Path | None, cache: Path) -> GeneratedTask:
    """The task of these settings.

    Raises:
        InvalidInput: a data file was given.
    """
    refuse_data(dataset)
    kept = config.vocab_size - config.noise_tokens
    return GeneratedTask(config, lambda rng, count: draw(rng, count, config), kept - kept // 2)


def draw(rng: np.random.Generator, count: int, config: NoisyRecall) -> Sequences:
    """Draw ``count`` sequences."""
    pairs = config.sequence_length // 2
    kept = config.vocab_size - config.noise_tokens
    keys = kept // 2
    stands_for = keys + rng.integers(0, kept - keys, (count, keys))
    key = rng.integers(0, keys, (count, pairs))
    noisy = rng.random((count, pairs)) < config.noise
    noisy[:, [0, -1]] = False
    key[:, -1] = _one_of_before(rng, key, noisy)
    rows = np.arange(count)[:, None]
    value = stands_for[rows, key]
    noise = rng.integers(kept, config.vocab_size, (count, pairs, 2))
    tokens = np.where(noisy[:, :, None], noise, np.stack((key, value), axis=2))
    answers = np.where(noisy | ~_known(key, noisy, keys), IGNORED, value)
    targets = np.stack((answers, np.full_like(answers, IGNORED)), axis=2)
    shape = (count, 2 * pairs)
    return Sequences(tokens.reshape(shape), targets.reshape(shape))


def _one_of_before(rng: np.random.Generator, key: Indices, noisy: Flags) -> Indices:
    """Of each row one of the keys before its last pair, each pair equally likely, (B,)."""
    weight = np.where(noisy, -1.0, rng.random(noisy.shape))[:, :-1]
    return np.asarray(key[np.arange(len(key)), weight.argmax(axis=1)])


def _known(key: Indices, noisy: Flags, keys: int) -> Flags:
    """Whether a pair's key was there before, (B, pairs)."""
    shown = (key[:, :, None] == np.arange(keys)) & ~noisy[:, :, None]
    before = np.cumsum(shown, axis=1) - shown
    return np.asarray(np.take_along_axis(before, key[:, :, None], axis=2)[:, :, 0] > 0)
