"""The preset search spaces: which there are, and which one a task gets by default."""

from __future__ import annotations

from functools import cache

from search_spaces import list_spaces, load_space

DEFAULT_CAUSAL = "efficient-lm"
DEFAULT_BIDIRECTIONAL = "efficient-encoder"


def default_space(causal: bool) -> str:
    """The preset of a task of that kind."""
    return DEFAULT_CAUSAL if causal else DEFAULT_BIDIRECTIONAL


@cache
def space_names(causal: bool | None = None) -> tuple[str, ...]:
    """What a job may name: each preset, and each with its version; of one kind if asked."""
    names: list[str] = []
    for name, version in list_spaces():
        label = f"{name}@{version}"
        if causal is None or load_space(label).causal == causal:
            names += (name, label)
    return tuple(dict.fromkeys(names))
