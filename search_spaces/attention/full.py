"""Full: softmax(QKᵀ/√E)V over all positions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import (
    ADDED_POSITIONS,
    BIASES,
    AttentionSpec,
    Decoding,
    Family,
    Position,
)
from search_spaces.attention.window import window_cost
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class FullAttention(AttentionSpec):
    """Softmax(QKᵀ/√E)V over all positions.

    ``queries_per_key`` heads of queries share one of keys and values (Ainslie et al. 2023,
    arXiv:2305.13245).
    """

    title: ClassVar[str] = "Full"
    family: ClassVar[Family] = "full"
    complexity: ClassVar[str] = "O(N²)"
    citation: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | BIASES | {"rotary"}

    type: Literal["full"] = "full"
    queries_per_key: Annotated[int, Field(ge=1), Domain((1, 2, 4))] = 1

    @property
    def heads_per_key(self) -> int:
        """How many heads of queries share one of keys and values."""
        return self.queries_per_key

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, two N² products; the kernel keeps one number for each row."""
        tokens = batch * length
        key_width = width // self.heads_per_key
        parameters = 2 * width * (width + key_width)
        flops = 2 * tokens * parameters + 4 * tokens * length * width
        # queries, keys, values, what came of them
        floats = tokens * (2 * width + 2 * key_width + heads)
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * floats,
            saved_bytes=FLOAT_BYTES * floats,
            # and gradients of all of them
            backward_bytes=FLOAT_BYTES * (floats + 2 * tokens * (width + key_width)),
        )

    def placed_cost(
        self, batch: int, length: int, width: int, heads: int, causal: bool, position: Position
    ) -> Cost:
        """With biases, that of a window as wide as the sequence."""
        if position not in BIASES:
            return self.cost(batch, length, width, heads, causal)
        right = 0 if causal else length
        shared = self.heads_per_key
        return window_cost(
            batch, length, width, heads, length, right, heads_per_key=shared, biased=True
        )
