"""Tiny architectures for the tests of this folder."""

from __future__ import annotations

from typing import Any

from search_spaces.architecture import Architecture


def tiny(attention: str = "full", width: int = 32, **fields: Any) -> Architecture:
    """Two equal layers of dense blocks."""
    layer = {"attention": {"type": attention}, "feedforward": {"type": "dense"}, "heads": 2}
    return Architecture.model_validate(
        {"width": width, "layers": [layer, layer], "position": "learned", **fields}
    )


ACT = tiny(repeats=3, halting={"type": "act"})
PERFORMER = tiny("performer")
