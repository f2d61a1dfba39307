"""Synthesizer: attention weights that come from no product of queries and keys."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from search_spaces.attention.base import AttentionSpec, Decoding, Family
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain

Variant: TypeAlias = Literal["dense", "random", "factorised"]

BLOCK = 64
"""Queries whose learned weights are handled together."""


class SynthesizerAttention(AttentionSpec):
    """Softmax(A)V, where A is an MLP of each position (``dense``), learned (``random``), or a
    learned product of ``rank`` (``factorised``)."""

    title: ClassVar[str] = "Synthesizer"
    family: ClassVar[Family] = "low-rank"
    complexity: ClassVar[str] = "O(N²)"
    citation: ClassVar[str] = "Tay et al. 2020, arXiv:2005.00743"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "recompute"

    type: Literal["synthesizer"] = "synthesizer"
    variant: Annotated[Variant, Domain(("dense", "random", "factorised"))] = "dense"
    rank: Annotated[int, Field(ge=1), Domain((4, 8, 16, 32))] = 8
    """Of the factorised variant; the others ignore it."""

    @property
    def widens(self) -> bool:
        """Where the weights are learned themselves."""
        return self.variant != "dense"

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Values and the output projected, N² weights made and used; learned ones once a batch."""
        dense = batch * length * width
        if self.variant == "dense":
            flops = 6 * dense * width + 4 * dense * length
            # the flash kernel's own logarithms of sums, one for each query and head
            sums = batch * length * heads
            return Cost(
                3 * width * width + width + width * length,
                flops,
                flops,
                live_bytes=FLOAT_BYTES * (3 * dense + sums),
                saved_bytes=FLOAT_BYTES * (3 * dense + sums),
                # the gradients of the output, of hidden layer, weights and values
                backward_bytes=FLOAT_BYTES * (7 * dense + sums),
            )
        parameters, flops, again = 2 * width * width, 4 * dense * width, 0
        whole, ragged = divmod(length, BLOCK)
        starts = range(0, length, BLOCK)
        seen = [min(start + BLOCK, length) if causal else length for start in starts]
        queries = [BLOCK] * whole + ([ragged] if ragged else [])
        pairs = sum(q * k for q, k in zip(queries, seen, strict=True))
        flops += 2 * batch * width * pairs
        if self.variant == "random":
            parameters += heads * length * length
        else:
            parameters += 2 * heads * length * self.rank
            again = 2 * heads * pairs * self.rank
            flops += again
        tile = heads * max(q * k for q, k in zip(queries, seen, strict=True))
        # the softmax is of scores that were made, or taken from the table as they are
        tiles = 1 if self.variant == "random" and not causal else 2
        # the weights of a block and their gradients, left over as the next one begins
        back = (2 + tiles) * tile
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * (3 * dense + tiles * tile),
            saved_bytes=FLOAT_BYTES * 2 * dense,
            # the gradients of output and values; both that it has saved, in the order of heads
            backward_bytes=FLOAT_BYTES * (6 * dense + max(dense, back)),
            backward_extra=again,  # the scores that are a product
        )
