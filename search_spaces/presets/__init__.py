"""The packaged search spaces, found by name and version; only these, never a file from outside."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from search_spaces.definition import SpaceDefinition, parse_definition, read_definition
from search_spaces.errors import InvalidSpace, Problem
from search_spaces.space import SearchSpace

_FOLDER = Path(__file__).parent
_FILE = re.compile(r"(?P<name>[a-z0-9-]+)-(?P<version>[0-9]+)\.yaml")


def list_spaces() -> list[tuple[str, int]]:
    """Name and version of each packaged space, sorted."""
    return sorted(_files())


def load_space(space: str | SpaceDefinition | dict[str, Any]) -> SearchSpace:
    """A packaged space by ``name`` (its newest version) or ``name@version``, or a definition's own.

    Raises:
        InvalidSpace: there is none of that name and version, or the definition cannot be used.
    """
    if isinstance(space, str):
        return _packaged(*_found(space))
    if isinstance(space, SpaceDefinition):
        return SearchSpace(space)
    return SearchSpace(parse_definition(space))


def _found(text: str) -> tuple[str, int]:
    name, at, version = text.partition("@")
    known = list_spaces()
    fit = [k for k in known if k[0] == name and (not at or str(k[1]) == version)]
    if not fit:
        versions = [f"{n}@{v}" for n, v in known if n == name]
        allowed = versions or list(dict.fromkeys(n for n, _ in known))
        raise InvalidSpace([Problem("", f"there is no search space {text!r}", tuple(allowed))])
    return fit[-1]


@lru_cache(maxsize=1)
def _files() -> dict[tuple[str, int], Path]:
    matches = ((_FILE.fullmatch(path.name), path) for path in _FOLDER.iterdir())
    return {(m["name"], int(m["version"])): path for m, path in matches if m}


@lru_cache(maxsize=64)
def _packaged(name: str, version: int) -> SearchSpace:
    return SearchSpace(read_definition(_files()[name, version]))
