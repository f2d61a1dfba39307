"""Fixed sparse attention: the own block, and the last columns of the other blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.attention.blocks import Range, Tile, tiled_cost
from search_spaces.attention.window import BLOCK
from search_spaces.cost import Cost
from search_spaces.values import Domain


class FixedAttention(AttentionSpec):
    """The own block of ``block`` positions, and the last ``summary`` of every other block.

    When causal, only what is not later. Near N·√N for blocks of about √N.
    """

    title: ClassVar[str] = "Sparse Transformer, fixed"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·b + N²·c/b)"
    citation: ClassVar[str] = "Child et al. 2019, arXiv:1904.10509"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["fixed"] = "fixed"
    block: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128))] = 64
    summary: Annotated[int, Field(ge=1), Domain((1, 2, 4, 8))] = 4

    @model_validator(mode="after")
    def _summary_fits(self) -> Self:
        if self.summary > self.block:
            raise ValueError(f"{self.summary} summary positions do not fit blocks of {self.block}")
        return self

    @property
    def tile(self) -> int:
        """Queries that are handled together: whole blocks, and small ones not alone."""
        return self.block * max(1, BLOCK // self.block)

    def summaries(self, length: int) -> int:
        """Summary positions among so many."""
        whole, rest = divmod(length, self.block)
        return whole * self.summary + max(0, rest - self.block + self.summary)

    def tiles(self, length: int, causal: bool, before: int = 0, past: int = 0) -> Iterator[Tile]:
        """The queries before … length - 1 of so many positions, cut into tiles.

        past: summaries of positions that came even before those.
        """
        for start in range(before // self.tile * self.tile, length, self.tile):
            stop, first = min(start + self.tile, length), max(start, before)
            keys = [Range(0, past + self.summaries(start), summary=True)]
            if not causal:
                later = past + self.summaries(stop)
                keys.append(Range(later, past + self.summaries(length), summary=True))
            ranges = *(r for r in keys if r.first < r.last), Range(start, stop)
            yield Tile(first - before, stop - before, ranges, first - start)

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """Keys and values of all summaries, and of the tile at hand."""
        rest = length % self.tile
        return super().state_bytes(self.summaries(length - rest) + rest, width, heads, position)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, and the products of blocks with themselves and with summaries."""
        tiles = list(self.tiles(length, causal))
        size = min(self.tile, length)
        return tiled_cost(
            batch,
            length,
            width,
            heads,
            tiles,
            summaries=self.summaries(length),
            biases=size * size,
        )
