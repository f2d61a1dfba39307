"""Full: softmax(QKᵀ/√E)V over all positions."""

from __future__ import annotations

from typing import ClassVar, Literal

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost


class FullAttention(AttentionSpec):
    """Softmax(QKᵀ/√E)V over all positions."""

    title: ClassVar[str] = "Full"
    family: ClassVar[Family] = "full"
    complexity: ClassVar[str] = "O(N²)"
    citation: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["full"] = "full"

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, two N² products; the kernel keeps one number for each row."""
        tokens = batch * length
        parameters = 4 * width * width
        flops = 2 * tokens * parameters + 4 * tokens * length * width
        floats = tokens * (4 * width + heads)  # queries, keys, values, what came of them
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * floats,
            saved_bytes=FLOAT_BYTES * floats,
        )
