"""Segments: contiguous runs of layers that are decided together."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def starts(depth: int, segments: int | None) -> tuple[int, ...]:
    """The first layer of each segment of a cycle of ``depth`` layers.

    None, or more segments than layers: each layer is its own. Doubling the number of segments
    divides those that there are, so that two segments are also four.
    """
    if segments is not None and segments < 1:
        raise ValueError(f"segments must be at least 1, not {segments}")
    count = depth if segments is None else min(segments, depth)
    return tuple(i * depth // count for i in range(count))


@lru_cache(maxsize=1024)
def members(depth: int, segments: int | None) -> tuple[int, ...]:
    """The number of the segment that each layer is in."""
    first = (*starts(depth, segments), depth)
    return tuple(s for s in range(len(first) - 1) for _ in range(first[s], first[s + 1]))


@lru_cache(maxsize=1024)
def origins(old: int, new: int, segments: int | None) -> tuple[int, ...]:
    """For each layer of a cycle of depth ``new`` the layer of the one of depth ``old`` it is like.

    Segments keep to their place, and layers to theirs within a segment, so what was made of equal
    segments still is.
    """
    before = (*starts(old, segments), old)
    after = (*starts(new, segments), new)
    layers = []
    for i, segment in enumerate(members(new, segments)):
        of = segment * (len(before) - 1) // (len(after) - 1)
        within = (i - after[segment]) * (before[of + 1] - before[of])
        layers.append(before[of] + within // (after[segment + 1] - after[segment]))
    return tuple(layers)
