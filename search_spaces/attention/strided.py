"""Strided sparse attention: the positions around, and every position a multiple of l away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.attention.blocks import TILE, largest_group
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class Band(NamedTuple):
    """Rows [first, last) of the grid of n rows of l positions that the sequence makes.

    Their queries see the rows from ``before`` above to ``after`` below their own, and of their own
    columns the first ``column`` positions.
    """

    first: int
    last: int
    before: int
    after: int
    column: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.last - self.first

    @property
    def around(self) -> int:
        """Number of rows that each row sees."""
        return self.before + 1 + self.after

    def scores(self, size: int) -> int:
        """Scores of one head for rows of so many positions."""
        return self.rows * size * (self.around * size + self.column)


def bands(length: int, size: int, causal: bool) -> Iterator[Band]:
    """The grid of N positions in rows of l, cut so that rows handled together see equally many."""
    n = length // size
    first = 0
    while first < n:
        before, after = int(first > 0), int(not causal and first < n - 1)
        if first == 0 or (not causal and first == n - 1):
            last = first + 1  # the edges of the grid lack a neighbour
        else:
            most = size * ((before + 1 + after) * size + n)
            last = min(first + max(1, TILE // most), n if causal else n - 1)
        # a causal column ends above the last row's own position
        whole = 0 if n == 1 else n
        yield Band(first, last, before, after, last - 1 if causal else whole)
        first = last


class StridedAttention(AttentionSpec):
    """Positions less than ``stride`` away, and those a multiple of it away; to the left alone when
    causal. Least for a stride of about √N: O(N·√N)."""

    title: ClassVar[str] = "Sparse Transformer, strided"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·l + N²/l)"
    citation: ClassVar[str] = "Child et al. 2019, arXiv:1904.10509"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "cache"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["strided"] = "strided"
    stride: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128))] = 32

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, and the products of rows with rows and of columns with columns."""
        size = min(self.stride, length)
        n = -(-length // size)
        parameters = 4 * width * width
        tile = back = pairs = 0
        for band in bands(n * size, size, causal):
            scores = band.scores(size)
            bias = 3 * size * size + band.rows * band.column
            pairs += scores
            group = largest_group(batch, heads, scores)
            head = size * width // heads
            row, column = group * band.rows * head, group * band.column * head
            # what rows, then columns see, copied for several heads; and what is mixed of it
            copied = (row * band.around, column) if group > 1 else (0, 0)
            mixed = max(row + copied[0], 2 * row + copied[1] if band.column else 0)
            tile = max(tile, bias + group * scores + mixed)
            # beside them the gradients of one kind of scores, then what those are worth to keys
            near = band.rows * size * band.around * size
            twice = group * (scores + max(near, scores - near))
            back = max(back, bias + twice + row + max(row * band.around, column) + max(copied))
        dense, padded = batch * length * width, batch * n * size * width
        kept = 3 * padded + dense + 2 * batch * n * size * heads
        flops = 2 * batch * length * parameters + 4 * batch * width * pairs
        made = 4 * dense if padded == dense else 3 * dense + 2 * padded
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * max(made, kept + tile),
            saved_bytes=FLOAT_BYTES * kept,
            # the output's gradient as it comes and divided by the mass, those of the others
            backward_bytes=FLOAT_BYTES
            * (kept + dense + 4 * padded + batch * n * size * heads + back),
            backward_extra=2 * batch * width * pairs,  # the weights again
        )
