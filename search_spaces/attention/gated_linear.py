"""Gated linear: sums of kᵀv that each channel forgets at a rate of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain

CHUNK = 64
"""Positions that attend to each other directly; earlier ones come as sums."""


class GatedLinearAttention(AttentionSpec):
    """S ← diag(α)S + kᵀv, o = qS, normed and gated; α of each channel comes from the input.

    Encoders add the same from right to left. ``gate_rank``: width between the input and α.
    """

    title: ClassVar[str] = "Gated linear"
    family: ClassVar[Family] = "kernel"
    complexity: ClassVar[str] = "O(N·E²)"
    citation: ClassVar[str] = "Yang et al. 2023, arXiv:2312.06635"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "state"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["gated_linear"] = "gated_linear"
    gate_rank: Annotated[int, Field(ge=1), Domain((8, 16, 32))] = 16

    @property
    def widens(self) -> bool:
        """Long sums."""
        return True

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """S of each head."""
        return FLOAT_BYTES * width * (width // heads)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Five projections, that of α through ``gate_rank``, and the chunks once or twice."""
        dense, head = batch * length * width, width // heads
        parameters = 5 * width * width + 2 * width * self.gate_rank + width + head
        flops = 10 * dense * width + 4 * dense * self.gate_rank
        whole, ragged = divmod(length, CHUNK)
        pairs = batch * (whole * CHUNK * CHUNK + ragged * ragged)
        chunks = (1 if causal else 2) * (4 * dense * head + 4 * pairs * width)
        flops += chunks
        hidden, states = batch * length * self.gate_rank, batch * width * head
        chunk = min(CHUNK, length)
        tile = (6 if causal else 7) * batch * chunk * width + batch * heads * chunk * chunk
        if causal:
            held = 5 * dense + (2 if length > CHUNK else 1) * states
        else:  # and what came from the left, with its last state
            held = 6 * dense + (3 if length > CHUNK else 2) * states
        # the gate, its slope and gradients beside all but what is normed and gated
        gating = 12 * dense + batch * length * heads
        # queries, keys, values, gates and their gradients; that of the output, twice, and of the
        # input through the gate; the state before each chunk
        mixing = (11 if causal else 15) * dense + -(-length // CHUNK) * states
        mixing += 10 * batch * chunk * width + 2 * batch * heads * chunk * chunk
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * max(held + tile, 5 * dense + hidden + states),
            saved_bytes=FLOAT_BYTES * (7 * dense + hidden + batch * length * heads + states),
            backward_bytes=FLOAT_BYTES * (hidden + states + max(gating, mixing)),
            backward_extra=chunks // 2,  # states and weights again
        )
