"""Handwritten digits as sequences of pixels, one class each.

The first of scikit-learn's digits, a zero, reads row by row, each pixel a grey level of 0 to 16::

    tokens   0 0 5 13 9 1 0 0   0 0 13 15 10 15 5 0   …   (8 rows, N = 64)
    target   0

The split is stratified and fixed: of each digit 70 % train, 15 % validate, 15 % test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.catalogue.tasks import ImageClassification
from nas.errors import DataUnavailable
from nas.tasks.examples import Examples, ExampleTask, Part
from search_spaces.errors import InvalidInput, Problem

SPLIT_SEED = 1797
HELD_OUT = 0.15


def build(config: ImageClassification, dataset: Path | None, cache: Path) -> ExampleTask:
    """The digits with their split.

    Raises:
        InvalidInput: a data file was given; the task has its own data.
        DataUnavailable: scikit-learn is not installed.
    """
    if dataset is not None:
        raise InvalidInput([Problem("/task/dataset", "this task takes no data of your own")])
    images, labels = _digits()
    return ExampleTask(
        config,
        {part: _examples(images[i], labels[i]) for part, i in _stratified(labels).items()},
    )


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        from sklearn.datasets import load_digits  # a second to import: only for this task
    except ImportError as error:
        raise DataUnavailable("the digits are part of scikit-learn, which is missing") from error
    images, labels = load_digits(return_X_y=True)
    return images.astype(np.uint8), labels.astype(np.uint8)


def _stratified(labels: NDArray[np.uint8]) -> dict[Part, NDArray[np.int64]]:
    """Ascending indices of each part, every class in the same proportions."""
    rng = np.random.default_rng(SPLIT_SEED)
    pieces: dict[Part, list[NDArray[np.int64]]] = {"train": [], "validation": [], "test": []}
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out = round(len(members) * HELD_OUT)
        pieces["validation"].append(members[:held_out])
        pieces["test"].append(members[held_out : 2 * held_out])
        pieces["train"].append(members[2 * held_out :])
    return {part: np.sort(np.concatenate(piece)) for part, piece in pieces.items()}


def _examples(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Examples:
    count, pixels = images.shape
    return Examples(images.reshape(-1), np.arange(count + 1, dtype=np.int64) * pixels, labels)
