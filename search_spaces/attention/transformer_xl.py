"""Transformer-XL: attention to the segment and to a memory of those before, by distance."""

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
from search_spaces.attention.window import BLOCK, blocks
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class TransformerXLAttention(AttentionSpec):
    """Full attention with relative positions and a memory of ``memory`` earlier hidden states.

    An encoder has no memory. Rotary, ALiBi and relative positions of the model are replaced by
    the mechanism's own; added ones stay.
    """

    title: ClassVar[str] = "Transformer-XL"
    family: ClassVar[Family] = "recurrence"
    complexity: ClassVar[str] = "O(N·(N + m))"
    citation: ClassVar[str] = "Dai et al. 2019, arXiv:1901.02860"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | BIASES | {"rotary"}

    type: Literal["transformer_xl"] = "transformer_xl"
    memory: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64

    def position_parameters(self, position: Position, heads: int) -> int:
        """None: its own relative positions are part of ``cost``."""
        return 0

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """That of a segment without one before: four projections and one of the distances,
        the products of queries with keys, values and distances."""
        tokens, rows = batch * length, batch * heads
        distances = length + (min(BLOCK, length) if causal else length)
        flops = 2 * (4 * tokens + distances) * width * width
        # sinusoids have no gradient, and weights are computed again
        extra = -2 * distances * width * width
        tile = back = left_over = 0
        for block in blocks(length, length, 0 if causal else length):
            C, K = block.queries, block.keys
            flops += 2 * batch * width * C * (3 * K + C)
            extra += 2 * batch * width * C * (2 * K + C)
            tile = max(tile, rows * C * (2 * K + C) + 2 * batch * C * width)
            # weights and gradients, which are left over as the next block begins
            back = max(back, left_over + rows * C * (2 * K + C) + 4 * batch * C * width)
            left_over = rows * C * (3 * K + C) + 4 * batch * C * width
            back = max(back, left_over)
        dense = 4 * tokens * width + distances * width  # queries, keys, values, output; distances
        return Cost(
            parameters=5 * width * width + 2 * width,
            flops=flops,
            flops_low=flops,
            live_bytes=FLOAT_BYTES * (dense + tile),
            saved_bytes=FLOAT_BYTES * dense,
            backward_bytes=FLOAT_BYTES * (2 * dense + tokens * heads + back),
            backward_extra=extra,
            memory_bytes=FLOAT_BYTES * batch * min(length, self.memory) * width if causal else 0,
        )
