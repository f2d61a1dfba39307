from __future__ import annotations

from typing import Any

import pytest

from nas.search.space import enumerate_space
from search_spaces import load_space

BLOCKS = {"feedforward": {"type": "dense", "ratio": [1, 2]}, "causal": False}
SMALL: list[Any] = [
    "tiny",
    # heads that divide one width only, and positions that one attention cannot take
    {
        **BLOCKS,
        "width": [8, 12, 18],
        "depth": [1, 2],
        "heads": [2, 3, 4],
        "position": ["sinusoidal", "rotary"],
        "attention": ["full", {"type": "linformer", "rank": [4, 8]}],
    },
    {
        **BLOCKS,
        "width": 16,
        "depth": [1, 2, 3],
        "heads": 2,
        "attention": ["full", {"type": "linear", "when": {"depth": [1, 3]}}],
        "halting": ["none", {"type": "act", "ponder_cost": 0.01, "repeats": [2, 3]}],
        "conditionals": [{"when": {"halting": ["act"]}, "require": {"depth": [1]}}],
    },
]


@pytest.mark.parametrize("space", SMALL, ids=["tiny", "heads and positions", "conditionals"])
def test_small_spaces_are_listed_completely(space: Any) -> None:
    loaded = load_space(space)
    listed = enumerate_space(loaded)
    assert len(listed) == loaded.size()
    for fingerprint, architecture in listed.items():
        assert loaded.contains(architecture)
        assert loaded.fingerprint(architecture) == fingerprint
