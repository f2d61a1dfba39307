"""BigBird: neighbouring blocks, leading blocks that all see, and random blocks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.attention.blocks import Tile, joined, tiled_cost
from search_spaces.cost import Cost
from search_spaces.values import Domain


class BigBirdAttention(AttentionSpec):
    """Blocks of ``block`` tokens; each sees itself, one on either side, the first ``globals`` ones,
    which see all, and ``random`` others."""

    title: ClassVar[str] = "BigBird"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·b·(3 + g + r))"
    citation: ClassVar[str] = "Zaheer et al. 2020, arXiv:2007.14062"
    causal: ClassVar[bool] = False
    decoding: ClassVar[Decoding] = "none"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["bigbird"] = "bigbird"
    block: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128))] = 64
    globals: Annotated[int, Field(ge=0), Domain((0, 1, 2))] = 2
    random: Annotated[int, Field(ge=0), Domain((0, 1, 2, 3))] = 3

    def links(self, length: int, seed: int) -> list[list[int]]:
        """The random blocks of each block of a sequence of at most N tokens.

        Whole blocks that it does not see anyway; all of them if there are not enough.
        """
        draw, whole = random.Random(seed), length // self.block
        chosen: list[list[int]] = []
        for i in range(-(-length // self.block)):
            if i < self.globals:
                chosen.append([])
                continue
            # places among the others, which are those before and those behind its neighbours
            first, behind = max(i - 1, self.globals), min(i + 2, whole)
            others = range(max(0, whole - self.globals - max(0, behind - first)))
            places = draw.sample(others, min(self.random, len(others)))
            blocks = (self.globals + p for p in places)
            chosen.append([j if j < first else j + max(0, behind - first) for j in blocks])
        return chosen

    def tiles(self, length: int, links: Sequence[Sequence[int]]) -> Iterator[Tile]:
        """The blocks of N tokens with what they see; random blocks behind the end do not exist."""
        size = self.block
        for i, start in enumerate(range(0, length, size)):
            seen = [(0, self.globals), (i - 1, i + 2), *((j, j + 1) for j in links[i])]
            if i < self.globals:
                seen = [(0, len(links))]
            ranges = joined((max(0, a) * size, min(b * size, length)) for a, b in seen)
            yield Tile(start, min(start + size, length), ranges)

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, and the products of blocks with those that they see."""
        tiles = list(self.tiles(length, self.links(length, seed=0)))
        return tiled_cost(batch, length, width, heads, tiles)
