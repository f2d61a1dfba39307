"""Performer: Performer attention."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Family, Position
from search_spaces.attention.kernel import mixing_flops
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class PerformerAttention(AttentionSpec):
    """Softmax attention approximated by ``features`` positive orthogonal random features (FAVOR+)."""

    title: ClassVar[str] = "Performer"
    family: ClassVar[Family] = "kernel"
    complexity: ClassVar[str] = "O(N·m·E)"
    citation: ClassVar[str] = "Choromanski et al. 2020, arXiv:2009.14794"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Literal["cache", "state", "none"]] = "state"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["performer"] = "performer"
    features: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        tokens = batch * length
        parameters = 4 * width * width
        flops = 2 * tokens * parameters + 4 * tokens * width * self.features
        flops += mixing_flops(batch, length, width, heads, self.features, causal)
        floats = tokens * (6 * width + 4 * heads * self.features)
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * floats,
            saved_bytes=FLOAT_BYTES * floats,
        )
