"""What kernel mechanisms share: φ(Q)(φ(K)ᵀV) with M features, in chunks when causal."""

from __future__ import annotations

CHUNK = 64
"""Positions that attend to each other directly in the causal form; earlier ones come as sums."""


def mixing_flops(
    batch: int, length: int, width: int, heads: int, features: int, causal: bool
) -> int:
    """FLOPs of the mixing, the features themselves not counted."""
    sums = 4 * batch * length * features * width
    weights = 2 * batch * length * features * heads
    if not causal:
        return sums + weights
    whole, ragged = divmod(length, CHUNK)
    pairs = whole * CHUNK * CHUNK + ragged * ragged
    return sums + weights + 2 * batch * pairs * (heads * features + width)


def mixing_live(
    batch: int, length: int, width: int, heads: int, features: int, causal: bool
) -> int:
    """Floats alive at most in the mixing beside features and values, its output included."""
    sums = batch * features * (width + heads)
    output = batch * length * (width + heads)
    if not causal:
        return output + sums + batch * length * width
    # of two chunks in turn: the direct weights, what they mix
    first = min(CHUNK, length)
    second = min(CHUNK, length - first)
    direct = heads * (first * first + second * second)
    return output + 2 * sums + batch * (direct + 2 * first * width)


def mixing_saved(batch: int, length: int, width: int, heads: int, features: int) -> int:
    """Floats that the mixing keeps for its backward pass beside features and values."""
    return batch * length * (width + heads) + batch * features * (width + heads)
