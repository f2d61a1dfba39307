"""What kernel mechanisms share: φ(Q)(φ(K)ᵀV) with M features, in chunks when causal."""

from __future__ import annotations

CHUNK = 64
"""Positions that attend to each other directly in the causal form; earlier ones come as sums."""


def chunks(length: int) -> int:
    """Chunks that N positions are padded to."""
    return -(-length // CHUNK)


def mixing_flops(batch: int, length: int, width: int, heads: int, features: int, causal: bool) -> int:
    """FLOPs of φ(Q)(φ(K)ᵀV), the features themselves not counted."""
    if not causal:
        return 4 * batch * length * features * width + 2 * batch * heads * length * features
    padded = chunks(length) * CHUNK
    sums = 4 * batch * padded * features * width
    direct = 2 * batch * padded * CHUNK * (heads * features + width)
    return sums + direct
