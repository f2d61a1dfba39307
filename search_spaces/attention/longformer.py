"""Longformer: Longformer attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain

BLOCK = 64
"""Queries that are handled together."""


class Block(NamedTuple):
    """Queries [start, stop) with the keys [first, last) that some of them see, and leading ones."""

    start: int
    stop: int
    first: int
    last: int
    leading: int

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.stop - self.start

    @property
    def keys(self) -> int:
        """Number of keys."""
        return self.leading + self.last - self.first


def blocks(
    length: int, left: int, right: int, leading: int = 0, before: int = 0
) -> Iterator[Block]:
    """Cut N queries that see ``left`` and ``right`` neighbours and ``leading`` first positions.

    before: keys that stand before the first query.
    """
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        first = max(0, before + start - left)
        last = min(before + length, max(before + stop + right, leading))
        yield Block(start, stop, first, last, min(leading, first))


class LongformerAttention(AttentionSpec):
    """A sliding window of ``window`` positions on each side (on the left alone when causal).

    Encoders have ``globals`` leading positions besides, which attend to all and all attend to.
    """

    title: ClassVar[str] = "Longformer"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·w)"
    citation: ClassVar[str] = "Beltagy et al. 2020, arXiv:2004.05150"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["longformer"] = "longformer"
    window: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64
    globals: Annotated[int, Field(ge=0), Domain((0, 1, 4))] = 1

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, and the products of blocks of queries with the keys they see."""
        tokens, rows = batch * length, batch * heads
        leading = 0 if causal else min(self.globals, length)
        parameters = 4 * width * width + (3 * width * width if leading else 0)
        flops = 8 * tokens * width * width
        tile, right = 0, 0 if causal else min(self.window, length)
        for block in blocks(length, self.window, right, leading):
            flops += 4 * batch * width * block.queries * block.keys
            copied = block.keys * width // heads if block.leading else 0
            tile = max(tile, rows * (2 * block.queries * block.keys + copied))
        band = min(BLOCK, length) * (BLOCK + min(self.window, length) + right)
        dense = tokens * width
        saved = 4 * dense
        if leading:
            # the output with the rows of the global positions put in, their weights and queries
            saved += dense + leading * heads * (tokens + 4 * batch * width)
            flops += 6 * batch * leading * width * width
            flops += 4 * batch * leading * heads * length * width
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * (4 * dense + tile + band),
            saved_bytes=FLOAT_BYTES * saved,
        )
