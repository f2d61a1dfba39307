"""Performer: Performer attention."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.attention.kernel import mixing_flops, mixing_live, mixing_saved
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class PerformerAttention(AttentionSpec):
    """Softmax attention by ``features`` positive orthogonal random features (FAVOR+).

    In training they are drawn anew every ``redraw`` forward passes (0: never).
    """

    title: ClassVar[str] = "Performer"
    family: ClassVar[Family] = "kernel"
    complexity: ClassVar[str] = "O(N·m·E)"
    citation: ClassVar[str] = "Choromanski et al. 2020, arXiv:2009.14794"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "state"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["performer"] = "performer"
    features: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64
    redraw: Annotated[int, Field(ge=0), Domain((0, 100))] = 0

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, M features for each head of queries and keys, sums over them."""
        parameters = 4 * width * width
        flops = 2 * batch * length * parameters
        flops += 4 * batch * length * width * self.features
        flops += mixing_flops(batch, length, width, heads, self.features, causal)
        dense = batch * length * width
        rows = batch * length * heads
        features = 2 * rows * self.features
        kept = mixing_saved(batch, length, width, heads, self.features) + dense
        projection = self.features * width // heads
        while_made = max(4 * dense, 3 * dense + features + rows)
        while_mixed = dense + features
        while_mixed += mixing_live(batch, length, width, heads, self.features, causal)
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * max(while_made, while_mixed),
            # the gradient of ‖k‖² needs the keys, which lie in one memory with the queries
            saved_bytes=FLOAT_BYTES * (2 * dense + features + kept + projection),
        )
