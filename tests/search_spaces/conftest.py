"""Small spaces that can be counted by hand or by trying everything."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from search_spaces import Architecture, InvalidArchitecture, SearchSpace, load_space

SMALL: dict[str, Any] = {
    "name": "small",
    "causal": False,
    "width": [12, 16],
    "depth": [1, 2],
    "heads": [2, 3],
    "position": ["learned", "rotary"],
    "attention": [
        {"type": "longformer", "window": [8, 16], "globals": 0, "queries_per_key": 1},
        {"type": "linformer", "rank": 8, "sharing": "layer", "when": {"width": 16}},
    ],
    "feedforward": {"type": "dense", "ratio": [1, 2]},
    "halting": ["none", {"type": "act", "ponder_cost": [0.01, 0.02], "repeats": [2, 3]}],
    "conditionals": [{"when": {"halting": "act", "repeats": 3}, "require": {"depth": 1}}],
}
"""Every kind of rule in it: heads, positions, conditions on options and on the model."""


@pytest.fixture
def small() -> SearchSpace:
    return load_space(SMALL)


@pytest.fixture
def small_but() -> Callable[..., SearchSpace]:
    """The small space with other parts in place of its own."""

    def build(**change: Any) -> SearchSpace:
        return load_space(SMALL | change)

    return build


@pytest.fixture(scope="session")
def try_everything() -> Callable[[SearchSpace], set[Architecture]]:
    """All architectures of a space, by trying every combination of every decision there is."""
    return _try_everything


def _try_everything(space: SearchSpace) -> set[Architecture]:
    domains = space.domains()
    found = set()
    for values in product(*(domain.values for domain in domains.values())):
        try:
            found.add(space.assemble(dict(zip(domains, values, strict=True))))
        except InvalidArchitecture:
            continue
    return found
