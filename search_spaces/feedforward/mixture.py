"""Mixture: the Switch Transformer's mixture of experts."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.cost import FLOAT_BYTES, INDEX_BYTES, Cost
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.values import Domain

ROW_MULTIPLE = 16
"""Rows of an expert's matrix products come in so many in causal slots."""


class MixtureFeedForward(FeedForwardSpec):
    """p · W₂ gelu(W₁ x) of the one expert, of ``experts``, that a router gives most weight p.

    An expert takes ⌈``capacity`` · n / ``experts``⌉ tokens of a sequence, the first that come; for
    others the block gives zero. n is the number of valid positions of the sequence in encoders; in
    causal slots it is the greatest length, for a token cannot know how many follow.
    ``auxiliary``: weight of the loss that evens out the load (equation 4).
    """

    title: ClassVar[str] = "Mixture of experts"
    complexity: ClassVar[str] = "O(N·D²)"
    citation: ClassVar[str] = "Fedus et al. 2021, arXiv:2101.03961"
    position_wise: ClassVar[bool] = False

    type: Literal["mixture"] = "mixture"
    experts: Annotated[int, Field(ge=1, le=256), Domain((2, 4, 8))] = 4
    capacity: Annotated[float, Field(ge=1, le=256), Domain((1.0, 1.25, 2.0))] = 1.25
    ratio: Annotated[float, Field(gt=0, le=16), Domain((1.0, 2.0, 4.0))] = 4.0
    auxiliary: Annotated[float, Field(ge=0, le=1)] = 0.01

    def inner(self, width: int) -> int:
        """The inner width of an expert, at least 1."""
        return max(1, round(self.ratio * width))

    def rows(self, length: int) -> int:
        """How many tokens of a sequence of N one expert takes."""
        return math.ceil(self.capacity * length / self.experts)

    def active_parameters(self, width: int, causal: bool = True) -> int:
        """The router and one expert."""
        return self.experts * width + 2 * width * self.inner(width)

    def state_bytes(self, width: int) -> int:
        """How many tokens chose each expert."""
        return INDEX_BYTES * self.experts

    def most_rows(self, batch: int, length: int, causal: bool) -> int:
        """Rows of all experts at most: tokens, and what fills up each expert's last few."""
        tokens, multiple = batch * length, row_multiple(length, causal)
        return (tokens + (multiple - 1) * min(self.experts, tokens)) // multiple * multiple

    def fewest_rows(self, batch: int, length: int, causal: bool) -> int:
        """Rows of all experts at least: of a causal sequence one is full, and an encoder's may be
        padding but for one token."""
        taken = batch * min(length, self.rows(length)) if causal else batch
        return _filled(taken, length, causal)

    def cost(self, batch: int, length: int, width: int, causal: bool) -> Cost:
        """The router for all, and one expert for each token: all of them, or one expert's share."""
        tokens, inner = batch * length, self.inner(width)
        most, fewest = (f(batch, length, causal) for f in (self.most_rows, self.fewest_rows))
        fullest = _filled(batch * min(length, self.rows(length)), length, causal)
        router, expert = self.experts * width, 2 * width * inner
        # what is left of routing: weights, their greatest and where it is, where its row is
        routing = tokens * (FLOAT_BYTES * (self.experts + 1) + 3 * INDEX_BYTES)
        # the last expert at work beside what the others gave; then all of it, as it is put back
        working = most * width + 2 * fullest * inner
        saved = routing + FLOAT_BYTES * (most * (2 * inner + width) + tokens * width)
        returned = (most - tokens) * width + fullest * (inner + width)
        return Cost(
            router + self.experts * expert,
            2 * (tokens * router + most * expert),
            2 * (tokens * router + fewest * expert),
            live_bytes=routing + FLOAT_BYTES * max(working, 2 * tokens * width),
            saved_bytes=saved,
            # gradients of the output, weighted and not; or those of rows, and an expert at work
            backward_bytes=saved + FLOAT_BYTES * max(2 * tokens * width, returned),
            choice_bytes=INDEX_BYTES * tokens,
        )


def row_multiple(length: int, causal: bool) -> int:
    """What an expert's rows are filled up to a multiple of.

    Matrix products compute the rows that are left over from such a multiple in another order, so
    that how many tokens follow would move the last bits of those before.
    """
    return ROW_MULTIPLE if causal and length > 1 else 1


def _filled(rows: int, length: int, causal: bool) -> int:
    multiple = row_multiple(length, causal)
    return math.ceil(rows / multiple) * multiple
