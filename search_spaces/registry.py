"""Closed sets of specs, found by the name in their ``type``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, Union

from search_spaces.values import Spec

S = TypeVar("S", bound=Spec)


class Registry(Mapping[str, type[S]], Generic[S]):
    """Spec classes by name, in the order they were given."""

    def __init__(self, specs: tuple[type[S], ...]) -> None:
        self._specs = {spec.name(): spec for spec in specs}
        if len(self._specs) != len(specs):
            raise ValueError(f"a mechanism is registered twice: {[s.name() for s in specs]}")

    def __getitem__(self, name: str) -> type[S]:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def union(self) -> Any:
        """The union of the classes, for pydantic to discriminate on ``type``."""
        # Union[X] is X, which cannot be discriminated and need not: its Literal checks itself
        return Union[tuple(self._specs.values())]  # noqa: UP007 - built at run time


def by_name(*specs: type[S]) -> Registry[S]:
    """A registry of these specs; a name given twice is an error at import."""
    return Registry(specs)
