"""Performer: Performer attention."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.attention.kernel import (
    mixing_backward,
    mixing_extra,
    mixing_flops,
    mixing_live,
    mixing_saved,
)
from search_spaces.cost import FLOAT_BYTES, INDEX_BYTES, Cost
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

    @property
    def widens(self) -> bool:
        """Long sums."""
        return True

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """The sums over all keys, weighted by their values and not."""
        return FLOAT_BYTES * self.features * (width + heads)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, M features for each head of queries and keys, sums over them."""
        parameters = 4 * width * width
        flops = 2 * batch * length * parameters
        making = 4 * batch * length * width * self.features
        flops += making
        flops += mixing_flops(batch, length, width, heads, self.features, causal)
        dense = batch * length * width
        features = 2 * batch * length * heads * self.features
        projection = self.features * width // heads
        kept = mixing_saved(batch, length, width, heads, self.features) + features + projection
        mixing = mixing_live(batch, length, width, heads, self.features, causal, copied=1)
        back = mixing_backward(batch, length, width, heads, self.features, causal, copied=1)
        again = mixing_extra(batch, length, width, heads, self.features, causal)
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * (3 * dense + features + projection + mixing),
            saved_bytes=FLOAT_BYTES * (3 * dense + kept),
            backward_bytes=FLOAT_BYTES * (3 * dense + features + projection + back),
            backward_extra=again - making,  # the projection has no gradient
            choice_bytes=INDEX_BYTES if self.redraw else 0,  # the number of the pass
        )
