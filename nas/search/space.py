"""What a strategy sees of a search space; a table of results can stand in for one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from search_spaces.errors import InvalidArchitecture
from search_spaces.values import Domain, Scalar

Architecture: TypeAlias = Any
"""Opaque here: only the space that made it looks inside."""
_Decisions: TypeAlias = dict[str, Scalar]


class Space(Protocol):
    """The methods of ``search_spaces.SearchSpace``, of architectures that may be anything."""

    def sample(self, rng: random.Random, segments: int | None = None) -> Architecture:
        """A random architecture, of so many segments of equal layers (None: per layer)."""

    def mutate(
        self, arch: Architecture, rng: random.Random, segments: int | None = None
    ) -> Architecture:
        """A neighbour."""

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """A child of both."""

    def contains(self, arch: Architecture) -> bool:
        """Whether the space could have made it."""

    def fingerprint(self, arch: Architecture) -> str:
        """Its identity."""

    def describe(self, arch: Architecture) -> dict[str, float]:
        """Numbers that tell architectures apart, for models of quality."""

    def homogeneous(self) -> Iterator[Architecture]:
        """All with the same block in every layer."""

    def domains(self) -> Mapping[str, Domain]:
        """Every decision by name, the earlier ones decide which of the later matter."""

    def decisions(self, arch: Architecture) -> Mapping[str, Scalar]:
        """The decisions that matter for this one."""

    def assemble(self, decisions: Mapping[str, Scalar]) -> Architecture:
        """The architecture of these decisions; those that do not matter are ignored.

        Raises:
            InvalidArchitecture: a combination that the space refuses.
        """

    def size(self) -> int:
        """How many architectures there are."""


def enumerate_space(space: Space) -> dict[str, Architecture]:
    """Architectures of a small space by fingerprint.

    Walks the tree of decisions, assembling each node with fall-back values for what is not yet
    decided. Complete where every valid choice of the first decisions can be completed by changing
    at most one of the fall-back values: compare the length with ``size()``.
    """
    return _Tree(space).leaves()


class _Tree:
    def __init__(self, space: Space) -> None:
        self._space = space
        self._domains = {name: domain.values for name, domain in space.domains().items()}
        self._found: dict[str, Architecture] = {}

    def leaves(self) -> dict[str, Architecture]:
        fallback = {name: values[0] for name, values in self._domains.items()}
        if root := self._complete({}, fallback):
            self._walk({}, *root)
        return self._found

    def _walk(self, decided: _Decisions, architecture: Architecture, fallback: _Decisions) -> None:
        matters = self._space.decisions(architecture)
        undecided = next((n for n in self._domains if n in matters and n not in decided), None)
        if undecided is None:
            self._found[self._space.fingerprint(architecture)] = architecture
            return
        for value in self._domains[undecided]:
            more = {**decided, undecided: value}
            if value == matters[undecided]:
                self._walk(more, architecture, fallback)
            elif branch := self._complete(more, fallback):
                self._walk(more, *branch)

    def _complete(
        self, decided: _Decisions, fallback: _Decisions
    ) -> tuple[Architecture, _Decisions] | None:
        """A valid architecture with these decisions, and the fall-back values that made it so."""
        for candidate in self._completions(decided, fallback):
            try:
                return self._space.assemble({**candidate, **decided}), candidate
            except InvalidArchitecture:
                continue  # the next completion may be valid
        return None

    def _completions(self, decided: _Decisions, fallback: _Decisions) -> Iterator[_Decisions]:
        yield fallback
        for name, values in self._domains.items():
            if name not in decided:
                yield from ({**fallback, name: value} for value in values)
