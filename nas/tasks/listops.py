"""Nested list operations, generated as Long Range Arena does (arXiv:2011.04006, ``listops.py``).

``[MAX 4 3 [MIN 2 3 ] 1 0 ]`` is 4. As tokens, ids in the second row::

    [MAX  4  3  [MIN  2  3   ]   1  0   ]
     12   5  4   11   3  4  15   2  1  15          target 4

Ids: 0 padding, 1–10 the digits 0–9, 11–14 MIN MAX MED SM, 15 the closing bracket.

A node is an operator with probability 1/4, else a digit; an operator takes 2 to 10 arguments; at
depth 10 there are digits only. MED is the integer part of the median, SM the sum modulo 10. A list
is kept if min_length < its tokens < max_length, and once only. A root that is a digit is never
kept, so none is drawn: the distribution is the same.

Trees are drawn many at a time, level by level. The nodes of a level lie in reading order, so the
arguments of an operator are neighbours in the level below, and sums over them are segment sums.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.atomic import replacing
from nas.catalogue.tasks import ListOps
from nas.errors import DataUnavailable
from nas.tasks.examples import Examples, ExampleTask, Part
from search_spaces.errors import InvalidInput, Problem
from search_spaces.values import canonical_json

MAX_DEPTH = 10
MAX_ARGUMENTS = 10
OPERATOR_PROBABILITY = 0.25
FIRST_DIGIT, FIRST_OPERATOR, CLOSE = 1, 11, 15

DATA_SEED = 2011
REVISION = 1
"""Part of the cache's name: raised when the same settings come to mean other data."""
DRAWN_AT_ONCE = 512

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """The nodes of one depth over all trees, in reading order.

    tree: ascending.  operator: -1 for a digit, else 0–3.  arguments: 0 for a digit.  digit: 0–9.
    """

    tree: Integers
    operator: Integers
    arguments: Integers
    digit: Integers

    def only(self, alive: NDArray[np.bool_]) -> Level:
        """The nodes of some of the trees."""
        keep = alive[self.tree]
        return Level(self.tree[keep], self.operator[keep], self.arguments[keep], self.digit[keep])

    @property
    def inner(self) -> NDArray[np.bool_]:
        """Which nodes are operators."""
        return self.operator >= 0

    @property
    def first_arguments(self) -> Integers:
        """Where the arguments of each operator begin in the level below."""
        counts = self.arguments[self.inner]
        return np.cumsum(counts) - counts


def build(config: ListOps, dataset: Path | None, cache: Path) -> ExampleTask:
    """The lists of these settings, from ``cache`` or generated into it.

    Raises:
        InvalidInput: a data file was given; the task makes its own.
        DataUnavailable: the cached file cannot be read or written.
    """
    if dataset is not None:
        raise InvalidInput([Problem("/task/dataset", "this task takes no data of your own")])
    settings = f"{REVISION} {canonical_json(config)}"
    path = cache / f"listops-{hashlib.sha256(settings.encode()).hexdigest()[:16]}.npz"
    try:
        if not path.exists():
            _write(path, generate(config))
        return ExampleTask(config, _read(path))
    except OSError as error:
        raise DataUnavailable(f"cannot keep the lists in {path}: {error}") from error


def generate(config: ListOps) -> dict[Part, Examples]:
    """All three parts, no list twice. The held-out ones are first: no training size moves them."""
    sizes: dict[Part, int] = {
        "validation": config.evaluation_examples,
        "test": config.evaluation_examples,
        "train": config.train_examples,
    }
    source = _distinct(config.min_length, config.max_length)
    return {part: _collect([next(source) for _ in range(size)]) for part, size in sizes.items()}


def draw(rng: np.random.Generator, count: int, min_length: int, max_length: int) -> Examples:
    """Draw ``count`` lists and keep those whose length fits."""
    levels, alive = _grow(rng, count, max_length)
    lengths = _lengths([level.only(alive) for level in levels])
    kept = np.zeros(count, dtype=bool)
    kept[np.flatnonzero(alive)] = (lengths[0] > min_length) & (lengths[0] < max_length)
    levels = [level.only(kept) for level in levels]
    return _written(levels, _lengths(levels), _values(levels))


def _grow(
    rng: np.random.Generator, count: int, max_length: int
) -> tuple[list[Level], NDArray[np.bool_]]:
    """The levels of ``count`` trees, and which trees were not given up as too long."""
    alive = np.ones(count, dtype=bool)
    size = np.zeros(count, dtype=np.int64)
    tree = np.arange(count)
    levels: list[Level] = []
    for depth in range(1, MAX_DEPTH + 1):
        if depth == 1:
            inner = np.ones(len(tree), dtype=bool)
        elif depth < MAX_DEPTH:
            inner = rng.random(len(tree)) < OPERATOR_PROBABILITY
        else:
            inner = np.zeros(len(tree), dtype=bool)
        operator = np.where(inner, rng.integers(0, 4, len(tree)), -1)
        arguments = np.where(inner, rng.integers(2, MAX_ARGUMENTS + 1, len(tree)), 0)
        levels.append(Level(tree, operator, arguments, rng.integers(0, 10, len(tree))))
        size += np.bincount(tree, 1 + inner, count).astype(np.int64)
        alive &= size + np.bincount(tree, arguments, count) < max_length
        keep = inner & alive[tree]
        tree = np.repeat(tree[keep], arguments[keep])
    return levels, alive


def _lengths(levels: list[Level]) -> list[Integers]:
    """Tokens of the subtree under each node, level by level: 1, or 2 + Σ arguments."""
    below: Integers = np.zeros(0, dtype=np.int64)
    lengths: list[Integers] = []
    for level in reversed(levels):
        here = np.ones(len(level.tree), dtype=np.int64)
        if level.inner.any():
            here[level.inner] = 2 + np.add.reduceat(below, level.first_arguments)
        lengths.insert(0, here)
        below = here
    return lengths


def _values(levels: list[Level]) -> Integers:
    """What each tree evaluates to, from the deepest level up."""
    below: Integers = np.zeros(0, dtype=np.int64)
    for level in reversed(levels):
        here = level.digit.copy()
        if level.inner.any():
            here[level.inner] = _apply(
                level.operator[level.inner],
                level.arguments[level.inner],
                level.first_arguments,
                below,
            )
        below = here
    return below


def _apply(operator: Integers, counts: Integers, first: Integers, values: Integers) -> Integers:
    """Each operator over its arguments: counts[i] neighbours in ``values`` from first[i] on."""
    group = np.repeat(np.arange(len(counts)), counts)
    ascending = np.sort(group * MAX_ARGUMENTS + values) - group * MAX_ARGUMENTS
    low, high = ascending[first + (counts - 1) // 2], ascending[first + counts // 2]
    results = (
        ascending[first],
        ascending[first + counts - 1],
        (low + high) // 2,
        np.add.reduceat(values, first) % 10,
    )
    return np.choose(operator, results)


def _written(levels: list[Level], lengths: list[Integers], values: Integers) -> Examples:
    """The trees as tokens, laid end to end in reading order."""
    bounds = np.concatenate([[0], np.cumsum(lengths[0])])
    tokens = np.zeros(bounds[-1], dtype=np.uint8)
    start = bounds[:-1]
    for depth, level in enumerate(levels):
        inner = level.inner
        tokens[start[~inner]] = FIRST_DIGIT + level.digit[~inner]
        tokens[start[inner]] = FIRST_OPERATOR + level.operator[inner]
        tokens[start[inner] + lengths[depth][inner] - 1] = CLOSE
        if not inner.any():
            break
        counts = level.arguments[inner]
        before = np.cumsum(lengths[depth + 1]) - lengths[depth + 1]
        before -= np.repeat(before[level.first_arguments], counts)
        start = np.repeat(start[inner] + 1, counts) + before
    return Examples(tokens, bounds, values.astype(np.uint8))


def _distinct(min_length: int, max_length: int) -> Iterator[tuple[bytes, int]]:
    """Tokens and value of list after list, none twice, without end."""
    rng = np.random.default_rng(DATA_SEED)
    seen: set[bytes] = set()
    while True:
        drawn = draw(rng, DRAWN_AT_ONCE, min_length, max_length)
        for i, target in enumerate(drawn.targets):
            tokens = drawn.tokens[drawn.bounds[i] : drawn.bounds[i + 1]].tobytes()
            digest = hashlib.blake2b(tokens, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield tokens, int(target)


def _collect(lists: list[tuple[bytes, int]]) -> Examples:
    return Examples(
        np.frombuffer(b"".join(tokens for tokens, _ in lists), dtype=np.uint8),
        np.cumsum([0, *(len(tokens) for tokens, _ in lists)], dtype=np.int64),
        np.array([target for _, target in lists], dtype=np.uint8),
    )


def _write(path: Path, parts: dict[Part, Examples]) -> None:
    arrays = {
        f"{part}_{name}": array
        for part, examples in parts.items()
        for name, array in vars(examples).items()
    }
    with replacing(path) as temporary, temporary.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays)


def _read(path: Path) -> dict[Part, Examples]:
    parts: tuple[Part, ...] = ("train", "validation", "test")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {
                part: Examples(*(stored[f"{part}_{f}"] for f in ("tokens", "bounds", "targets")))
                for part in parts
            }
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataUnavailable(f"{path} is damaged: delete it, and it is made again") from error
