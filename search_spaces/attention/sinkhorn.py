"""Sinkhorn: every block attends to itself and to a block that a learned sorting puts before it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain

TILE = 2**17
"""Scores that are computed together, unless one block has more."""


class SinkhornAttention(AttentionSpec):
    """Blocks of ``block`` tokens; each sees itself and a mean of blocks by a row of a matrix that
    ``iterations`` of balancing bring near a permutation, the nearer the lower ``temperature``."""

    title: ClassVar[str] = "Sinkhorn"
    family: ClassVar[Family] = "sparse"
    complexity: ClassVar[str] = "O(N·b + N²/b)"
    citation: ClassVar[str] = "Tay et al. 2020, arXiv:2002.11296"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "recompute"
    memory_exponent: ClassVar[float] = 1.25  # (N / b)² numbers tell how blocks are sorted
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["sinkhorn"] = "sinkhorn"
    block: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128))] = 64
    iterations: Annotated[int, Field(ge=1), Domain((2, 5, 8))] = 5
    temperature: Annotated[float, Field(gt=0), Domain((0.25, 0.5, 0.75, 1.0))] = 0.75

    @property
    def widens(self) -> bool:
        """Sums over blocks, and logarithms of them."""
        return True

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, the sorting of blocks, and queries with two blocks of keys each."""
        n = -(-length // self.block)
        size, rows = min(self.block, length), batch * heads
        parameters = 4 * width * width + 2 * n * width
        flops = 8 * batch * length * width * width
        flops += 2 * batch * n * n * width  # the logits
        flops += 4 * batch * n * n * size * width + 2 * rows * n * n * size  # the sorted blocks
        flops += 8 * batch * n * size * size * width
        dense, padded = batch * length * width, rows * n * size * width // heads
        matrix = rows * n * n
        at_once, blocks = together(rows, n, size)
        m = at_once * blocks * size
        seen = m * width // heads
        weighing = 4 * seen + 3 * m + 2 * m * size + max(2 * m * size, seen)
        while_mixed = 3 * padded + dense + matrix + n * size + 2 * size * size
        while_mixed += weighing
        while_made = 4 * dense if padded == dense else 3 * dense + 2 * padded
        # the balanced matrix and its logits, and in bytes which of its entries are no 0
        kept = 3 * padded + dense + 2 * matrix + n * size
        kept += 2 * rows * n * (width // heads + 1)
        # gradients: the output's, twice, of queries, keys, values and the order; and a tile's
        back = dense + 4 * padded + matrix + rows * n * size + 2 * size * size
        back += 11 * seen + 4 * m * size + 4 * m
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * max(while_made, while_mixed),
            saved_bytes=FLOAT_BYTES * kept + matrix,
            backward_bytes=FLOAT_BYTES * (kept + back) + matrix,
            # blocks are sorted and weighed again
            backward_extra=4 * batch * n * size * width * (n + size),
        )


def together(rows: int, blocks: int, size: int) -> tuple[int, int]:
    """Of so many rows of blocks, the rows and the blocks of each that are handled together."""
    scores = 2 * size * size
    step = max(1, min(rows, TILE // (blocks * scores)))
    return step, blocks if step > 1 else max(1, min(blocks, TILE // scores))
