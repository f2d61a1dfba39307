"""Linear: φ(Q)(φ(K)ᵀV) with φ = elu + 1, normalised."""

from __future__ import annotations

from typing import ClassVar, Literal

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.attention.kernel import (
    mixing_backward,
    mixing_extra,
    mixing_flops,
    mixing_live,
    mixing_saved,
)
from search_spaces.cost import FLOAT_BYTES, Cost


class LinearAttention(AttentionSpec):
    """Φ(Q)(φ(K)ᵀV) with φ = elu + 1, normalised."""

    title: ClassVar[str] = "Linear"
    family: ClassVar[Family] = "kernel"
    complexity: ClassVar[str] = "O(N·E²)"
    citation: ClassVar[str] = "Katharopoulos et al. 2020, arXiv:2006.16236"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "state"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["linear"] = "linear"

    @property
    def widens(self) -> bool:
        """Long sums."""
        return True

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """The sums over all keys, weighted by their values and not."""
        return FLOAT_BYTES * (width // heads) * (width + heads)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections and the sums over E features for each head."""
        parameters = 4 * width * width
        features = width // heads
        flops = 2 * batch * length * parameters
        flops += mixing_flops(batch, length, width, heads, features, causal)
        dense = batch * length * width
        kept = mixing_saved(batch, length, width, heads, features)
        # features take the place of queries and keys
        mixing = mixing_live(batch, length, width, heads, features, causal, copied=3)
        back = mixing_backward(batch, length, width, heads, features, causal, copied=3)
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * (3 * dense + mixing),
            saved_bytes=FLOAT_BYTES * (3 * dense + kept),
            backward_bytes=FLOAT_BYTES * (3 * dense + back),
            backward_extra=mixing_extra(batch, length, width, heads, features, causal),
        )
