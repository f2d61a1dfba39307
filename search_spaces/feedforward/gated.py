"""Gated: GEGLU and SwiGLU."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.values import Domain


class GatedFeedForward(FeedForwardSpec):
    """W₂ (g(W₁ x) ⊙ V x) with an inner width of ``ratio`` · D, g = gelu or silu."""

    title: ClassVar[str] = "Gated"
    complexity: ClassVar[str] = "O(N·D²)"
    citation: ClassVar[str] = "Shazeer 2020, arXiv:2002.05202"

    type: Literal["gated"] = "gated"
    ratio: Annotated[float, Field(gt=0, le=16), Domain((1.0, 2.0, 3.0))] = 2.0
    activation: Annotated[Literal["gelu", "silu"], Domain(("gelu", "silu"))] = "gelu"

    def inner(self, width: int) -> int:
        """The inner width, at least 1."""
        return max(1, round(self.ratio * width))

    def cost(self, batch: int, length: int, width: int, causal: bool) -> Cost:
        """Three projections."""
        tokens, inner = batch * length, self.inner(width)
        parameters = 3 * width * inner
        flops = 2 * tokens * parameters
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * tokens * max(3 * inner, inner + width),
            saved_bytes=FLOAT_BYTES * tokens * 4 * inner,
            # the gradients of the product and of both factors, when the product is given back
            backward_bytes=FLOAT_BYTES * tokens * max(6 * inner, inner + width),
            last_flops=2 * tokens * width * inner,
        )
