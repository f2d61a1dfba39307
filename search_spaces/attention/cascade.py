"""Cascade: a sliding window that grows from layer to layer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

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
from search_spaces.cost import Cost
from search_spaces.values import Domain

WIDEST = 2**20
"""Positions beyond which windows grow no more."""


class CascadeAttention(AttentionSpec):
    """A window of ``window`` positions on each side, ``growth`` times as wide in the next layer.

    On the left alone when causal; ``window`` is that of the first layer of the cycle.
    """

    title: ClassVar[str] = "Cascade"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·w)"
    citation: ClassVar[str] = "Wang et al. 2020, arXiv:2002.06170"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | BIASES | {"rotary"}

    type: Literal["cascade"] = "cascade"
    window: Annotated[int, Field(ge=1, le=WIDEST), Domain((2, 4, 8, 16, 32))] = 4
    growth: Annotated[int, Field(ge=1), Domain((1, 2, 4))] = 2

    def at(self, layer: int) -> Self:
        """The same with the window of that layer, window · growthˡ."""
        window = self.window
        for _ in range(layer):
            if self.growth == 1 or window == WIDEST:
                break
            window = min(window * self.growth, WIDEST)
        return self.model_copy(update={"window": window})

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """Keys and values of the window."""
        return super().state_bytes(min(length, self.window), width, heads, position)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, and the products of a window of ``window``."""
        return self.placed_cost(batch, length, width, heads, causal, "none")

    def placed_cost(
        self, batch: int, length: int, width: int, heads: int, causal: bool, position: Position
    ) -> Cost:
        """The same with biases, if the positions are some."""
        left, right = self.window, 0 if causal else self.window
        return window_cost(batch, length, width, heads, left, right, biased=position in BIASES)
