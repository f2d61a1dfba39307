"""What kernel mechanisms share: φ(Q)(φ(K)ᵀV) with M features, in chunks when causal."""

from __future__ import annotations

from collections.abc import Iterator

CHUNK = 64
"""Positions that attend to each other directly in the causal form; earlier ones come as sums."""

TOGETHER = 2**17
"""Features that are handled together, unless one chunk has more."""


def spans(length: int, features: int) -> Iterator[tuple[int, int, int]]:
    """Cut N positions that have so many features each: first, end, number of chunks.

    Only the last one may have a chunk that is short, and that alone.
    """
    number = max(1, TOGETHER // (CHUNK * features))
    whole = length - length % CHUNK
    for start in range(0, whole, number * CHUNK):
        stop = min(start + number * CHUNK, whole)
        yield start, stop, (stop - start) // CHUNK
    if whole < length:
        yield whole, length, 1


def mixing_flops(
    batch: int, length: int, width: int, heads: int, features: int, causal: bool
) -> int:
    """FLOPs of the mixing, the features themselves not counted."""
    sums = 4 * batch * length * features * width
    weights = 2 * batch * length * features * heads
    if not causal:
        return sums + weights
    return sums + weights + 2 * batch * _pairs(length) * (heads * features + width)


def mixing_extra(
    batch: int, length: int, width: int, heads: int, features: int, causal: bool
) -> int:
    """FLOPs of the mixing's backward pass beyond twice those of the forward pass."""
    # the sums of keys are no product, and the gradient of queries through them is none
    weights = -2 * batch * length * features * heads
    if not causal:
        return weights
    # the sums before each chunk, and what its own keys weigh, once more
    sums = 2 * batch * length * features * width
    return weights + sums + 2 * batch * _pairs(length) * (heads * features + width)


def mixing_live(
    batch: int, length: int, width: int, heads: int, features: int, causal: bool, copied: int
) -> int:
    """Floats alive at most in the mixing beside projections and features, its output included.

    copied: how many of queries, keys and values have features, or are values, that lie apart and
    are copied if several sequences or chunks are handled together.
    """
    sums = batch * features * (width + heads)
    output = batch * length * (width + heads)
    first, stop, number = next(spans(length, batch * heads * features))
    span = batch * (stop - first) * width
    rows = batch * (stop - first) * heads
    made = 2 * span + 2 * rows
    if not causal:
        queries = span if batch > 1 and copied > 1 else 0
        return sums + max(made, output + queries + span + rows)
    copies = copied * span if batch > 1 or number > 1 else 0
    before = number * sums if number > 1 else 0
    direct = rows * (stop - first) // number
    return output + 2 * sums + max(made, copies + before + max(number * sums, direct + span + rows))


def mixing_saved(batch: int, length: int, width: int, heads: int, features: int) -> int:
    """Floats that the mixing keeps for its backward pass beside projections and features."""
    return batch * length * (width + heads) + batch * features * (width + heads)


def mixing_backward(
    batch: int, length: int, width: int, heads: int, features: int, causal: bool, copied: int
) -> int:
    """Floats alive at most in the mixing's backward pass, with what it has saved, beside
    projections and features.

    copied: as in ``mixing_live``.
    """
    dense, sums = batch * length * width, batch * features * (width + heads)
    # the gradients of the output, and of queries, keys and values
    held = mixing_saved(batch, length, width, heads, features) + 4 * dense
    first, stop, number = next(spans(length, batch * heads * features))
    span, rows = batch * (stop - first) * width, batch * (stop - first) * heads
    made = rows * features  # the gradient of a span's features; the last one is left over
    several = stop < length
    if not causal:
        copies = made if batch > 1 and copied > 1 else 0
        return held + sums + copies + span + rows + made + max(span, made if several else 0)
    # until the way back through the sums, of all spans: the gradients of both sides of the
    # division, and copies
    held += dense + batch * length * heads
    if batch > 1 or number > 1:
        held += copied * dense
    direct = rows * (stop - first) // number
    several = stop < length - length % CHUNK or length % CHUNK == 0
    tile = 2 * direct + made + max(span, made, direct if several else 0)
    return held + 2 * sums + 2 * number * sums + tile


def _pairs(length: int) -> int:
    """Pairs of positions of the same chunk."""
    whole, ragged = divmod(length, CHUNK)
    return whole * CHUNK * CHUNK + ragged * ragged
