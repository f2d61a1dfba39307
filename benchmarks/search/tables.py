"""A table of trained architectures as a search space.

Letters: T rows of the table, n decisions, d descriptors.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nas.search.pareto import Floats
from search_spaces.segments import starts
from search_spaces.values import Domain, Scalar

NEIGHBOURS = 10
"""So many of the nearest rows are what a row mutates to."""


@dataclass(frozen=True)
class Row:
    """One trained architecture.

    decisions are those that apply to it; layers are equal where their blocks are.
    """

    decisions: Mapping[str, Scalar]
    layers: Sequence[Scalar | tuple[Scalar, ...]]
    descriptors: Mapping[str, float]
    metrics: Mapping[str, float]
    lower: Sequence[Mapping[str, float]] = ()
    """Metrics at each rung below the last, costs among them."""

    def at(self, rung: int) -> Mapping[str, float]:
        """Metrics at a rung, 0 the lowest."""
        return (*self.lower, self.metrics)[rung]


class Training(NamedTuple):
    """A row is trained to a rung, from the last one that it had reached."""

    row: int
    rung: int


class TableMissing(Exception):
    """A table is not there; says where it is to be had."""


class TableSpace:
    """``nas.search.space.Space`` over the rows of a table, an architecture being a row's number.

    The rows are a sample of a space that is far larger. Whatever makes decisions of its own gets
    the row that is nearest to them: counting one for each decision that differs or that only one
    side has, a fraction of it where the values are ordered. A mutant is one of the nearest rows, a
    child the nearest to a uniform crossover. Segments mean nothing here: where rows were drawn
    layer by layer, next to none is homogeneous.

    steps: of training at each rung, ascending; the last is full training.
    """

    def __init__(
        self, rows: Sequence[Row], domains: Mapping[str, Domain], steps: Sequence[int] = (1,)
    ) -> None:
        self.rows = tuple(rows)
        self.steps = tuple(steps)
        self._domains = dict(domains)
        self._codes = np.array([self._code(row.decisions) for row in rows])
        self._segments = np.array([_segments(row.layers) for row in rows])
        self._near = [self._nearest_to(code)[: NEIGHBOURS + 1].tolist() for code in self._codes]

    def sample(self, rng: random.Random, segments: int | None = None) -> int:
        """Any row."""
        return rng.randrange(len(self.rows))

    def mutate(self, arch: int, rng: random.Random, segments: int | None = None) -> int:
        """One of the nearest other rows."""
        others: list[int] = [row for row in self._near[arch] if row != arch]
        return rng.choice(others)

    def crossover(self, a: int, b: int, rng: random.Random) -> int:
        """The row nearest to decisions of either parent."""
        first, second = self.rows[a].decisions, self.rows[b].decisions
        child = {**second, **first}
        for name in child:
            if name in second and rng.random() < 0.5:
                child[name] = second[name]
        return self.assemble(child)

    def contains(self, arch: int) -> bool:
        """Whether there is such a row."""
        return 0 <= arch < len(self.rows)

    def fingerprint(self, arch: int) -> str:
        """Its number."""
        return str(arch)

    def describe(self, arch: int) -> dict[str, float]:
        """Its descriptors."""
        return dict(self.rows[arch].descriptors)

    def homogeneous(self) -> Iterator[int]:
        """Rows with the same block in every layer."""
        return iter(np.flatnonzero(self._segments == 1).tolist())

    def domains(self) -> dict[str, Domain]:
        """Every decision that some row has."""
        return dict(self._domains)

    def decisions(self, arch: int) -> dict[str, Scalar]:
        """Those that apply to a row."""
        return dict(self.rows[arch].decisions)

    def assemble(self, decisions: Mapping[str, Scalar]) -> int:
        """The nearest row."""
        return self.nearest(decisions)[0]

    def nearest(self, decisions: Mapping[str, Scalar]) -> list[int]:
        """All rows, nearest to these decisions first; those that do not apply are not looked at."""
        applying = {n: v for n, v in decisions.items() if _applies(n, decisions)}
        rows: list[int] = self._nearest_to(self._code(applying)).tolist()
        return rows

    def size(self) -> int:
        """How many architectures the space has, at most, that the rows are a sample of."""
        counts = {name: len(domain.values) for name, domain in self._domains.items()}
        shared = [n for name, n in counts.items() if name != "depth" and "layer." not in name]
        layer = math.prod(n for name, n in counts.items() if name.startswith("layer.0."))
        stacks: int = sum(layer ** int(depth) for depth in self._domains["depth"].values)
        return math.prod(shared) * stacks

    def _code(self, decisions: Mapping[str, Scalar]) -> list[float]:
        """(n,) the place of each value from 0 to 1, or its number where not ordered; NaN: none."""
        code = []
        for name, domain in self._domains.items():
            place = domain.values.index(decisions[name]) if name in decisions else math.nan
            code.append(place / max(1, len(domain.values) - 1) if domain.ordered else place)
        return code

    def _nearest_to(self, code: Sequence[float] | Floats) -> np.ndarray:
        wanted = np.asarray(code)
        apart = np.minimum(np.abs(self._codes - wanted), 1.0)
        missing = np.isnan(self._codes) != np.isnan(wanted)
        distances = np.where(missing, 1.0, np.nan_to_num(apart)).sum(axis=1)
        return np.argsort(distances, kind="stable")


class Segmented(TableSpace):
    """The same rows, of as few segments as asked for where there are such rows."""

    def sample(self, rng: random.Random, segments: int | None = None) -> int:
        """A row of at most so many segments, any where there is none."""
        few: list[int] = np.flatnonzero(self._segments <= (segments or math.inf)).tolist()
        return rng.choice(few) if few else super().sample(rng)

    def mutate(self, arch: int, rng: random.Random, segments: int | None = None) -> int:
        """One of the nearest other rows, of at most so many segments where there is one."""
        others: list[int] = [row for row in self._near[arch] if row != arch]
        few = [row for row in others if self._segments[row] <= (segments or math.inf)]
        return rng.choice(few or others)


def segmented(space: TableSpace) -> TableSpace:
    """The same rows, told apart by their segments."""
    return Segmented(space.rows, space.domains(), space.steps)


def unsegmented(space: TableSpace) -> TableSpace:
    """The same rows, whatever their segments."""
    return TableSpace(space.rows, space.domains(), space.steps)


def one_hot(space: TableSpace) -> TableSpace:
    """The same rows, described by nothing but one number for each value of each decision."""
    domains = space.domains()
    rows = [
        replace(
            row,
            descriptors={
                f"{name}={value}": float(row.decisions.get(name) == value)
                for name, domain in domains.items()
                for value in domain.values
            },
        )
        for row in space.rows
    ]
    return type(space)(rows, domains, space.steps)


def _segments(layers: Sequence[object]) -> int:
    """The least number of segments that are each of equal layers."""
    for count in range(1, len(layers) + 1):
        bounds = (*starts(len(layers), count), len(layers))
        runs = [layers[a:b] for a, b in pairwise(bounds)]
        if all(len(set(run)) == 1 for run in runs):
            return count
    raise AssertionError("as many segments as layers always do")


def _applies(name: str, decisions: Mapping[str, Scalar]) -> bool:
    """Whether a decision is one of a layer that is there, and of a mechanism that is chosen."""
    if name.startswith("layer.") and int(name.split(".")[1]) >= int(decisions["depth"]):
        return False
    owner, _, option = name.rpartition(".")[0].rpartition(".")
    return owner not in decisions or decisions[owner] == option
