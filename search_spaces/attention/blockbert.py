"""BlockBERT: each block of queries sees one block of keys, another for other heads."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class BlockBertAttention(AttentionSpec):
    """The longest sequence is ``blocks`` blocks; heads see the own one, the next, and so on."""

    title: ClassVar[str] = "BlockBERT"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N²/n)"
    citation: ClassVar[str] = "Qiu et al. 2019, arXiv:1911.02972"
    causal: ClassVar[bool] = False
    decoding: ClassVar[Decoding] = "none"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["blockbert"] = "blockbert"
    blocks: Annotated[int, Field(ge=1), Domain((2, 3, 4, 8))] = 2

    def size(self, max_length: int) -> int:
        """Tokens of a block, given the longest sequence: not the one at hand, or padding would
        move tokens to other blocks."""
        return -(-max_length // self.blocks)

    def shifts(self, heads: int) -> list[range]:
        """Of each shift, from 0, the heads whose blocks see the block so much further on.

        As many for each; what is left over sees its own block rather than another.
        """
        used = min(self.blocks, heads)
        edges = [-(-s * heads // used) for s in range(used + 1)]
        return [range(*pair) for pair in pairwise(edges)]

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, and the products of each block of queries with one of keys."""
        size = self.size(length)
        padded = -(-length // size) * size
        parameters = 4 * width * width
        flops = 2 * batch * length * parameters + 4 * batch * padded * size * width
        kept = batch * padded * (4 * width + heads)
        # blocks that do not fill up: the queries as they were, and the output without its end
        ragged = batch * length * width if padded > length else 0
        saved = kept + (ragged if batch > 1 else 0)
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * (kept + ragged),
            saved_bytes=FLOAT_BYTES * saved,
            backward_bytes=FLOAT_BYTES * (saved + 4 * batch * padded * width),
        )
