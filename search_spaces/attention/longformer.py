"""Longformer: a sliding window, and in encoders leading positions that all see."""

from __future__ import annotations

from dataclasses import replace
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


class LongformerAttention(AttentionSpec):
    """A sliding window of ``window`` positions on each side (on the left alone when causal).

    Encoders have ``globals`` leading positions besides, which attend to all and all attend to.
    ``queries_per_key`` heads of queries share one of keys and values.
    """

    title: ClassVar[str] = "Longformer"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·w)"
    citation: ClassVar[str] = "Beltagy et al. 2020, arXiv:2004.05150"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | BIASES | {"rotary"}

    type: Literal["longformer"] = "longformer"
    window: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64
    globals: Annotated[int, Field(ge=0), Domain((0, 1, 4))] = 1
    queries_per_key: Annotated[int, Field(ge=1), Domain((1, 2, 4))] = 1

    @property
    def heads_per_key(self) -> int:
        """How many heads of queries share one of keys and values."""
        return self.queries_per_key

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """Keys and values of the window."""
        return super().state_bytes(min(length, self.window), width, heads, position)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """That of the window; the leading positions have projections of their own."""
        return self.placed_cost(batch, length, width, heads, causal, "none")

    def placed_cost(
        self, batch: int, length: int, width: int, heads: int, causal: bool, position: Position
    ) -> Cost:
        """The same with biases, if the positions are some."""
        leading = 0 if causal else min(self.globals, length)
        local = window_cost(
            batch,
            length,
            width,
            heads,
            self.window,
            0 if causal else self.window,
            leading=leading,
            heads_per_key=self.heads_per_key,
            biased=position in BIASES,
        )
        if not leading:
            return local
        flops = 6 * batch * leading * width * width
        flops += 4 * batch * leading * heads * length * width
        # the output with the rows of the global positions put in, their weights and queries
        saved = batch * length * width + leading * heads * batch * (length + 4 * width)
        return replace(
            local,
            parameters=local.parameters + 3 * width * width,
            flops=local.flops + flops,
            flops_low=local.flops_low + flops,
            saved_bytes=local.saved_bytes + FLOAT_BYTES * saved,
            # by then beside the input's gradient through the leading positions
            backward_bytes=local.backward_bytes + FLOAT_BYTES * batch * length * width,
        )
