"""Dense: the feed-forward block of the first Transformer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.values import Domain


class DenseFeedForward(FeedForwardSpec):
    """W₂ gelu(W₁ x) with an inner width of ``ratio`` · D."""

    title: ClassVar[str] = "Dense"
    complexity: ClassVar[str] = "O(N·D²)"
    citation: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762"

    type: Literal["dense"] = "dense"
    ratio: Annotated[float, Field(gt=0, le=16), Domain((1.0, 2.0, 4.0))] = 4.0

    def inner(self, width: int) -> int:
        """The inner width, at least 1."""
        return max(1, round(self.ratio * width))

    def cost(self, batch: int, length: int, width: int, causal: bool) -> Cost:
        """Two projections."""
        tokens, inner = batch * length, self.inner(width)
        parameters = 2 * width * inner
        flops = 2 * tokens * parameters
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * tokens * max(2 * inner, inner + width),
            saved_bytes=FLOAT_BYTES * tokens * 2 * inner,
            # the gradient of one of them, before that is given back
            backward_bytes=FLOAT_BYTES * tokens * max(3 * inner, inner + width),
            last_flops=2 * tokens * width * inner,
        )
