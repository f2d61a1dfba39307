"""Sliding windows: the blocks that queries are cut into, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from search_spaces.cost import FLOAT_BYTES, Cost

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


def window_cost(
    batch: int,
    length: int,
    width: int,
    heads: int,
    left: int,
    right: int,
    *,
    leading: int = 0,
    heads_per_key: int = 1,
    biased: bool = False,
) -> Cost:
    """Projections, and the products of blocks of queries with the keys that they see.

    heads_per_key: how many heads of queries share one of keys and values.  biased: whether scores
    have a bias by distance.
    """
    tokens, rows = batch * length, batch * heads
    key_width = width // heads_per_key
    parameters = 2 * width * (width + key_width)
    tile, right, left = 0, min(right, length), min(left, length)
    pairs = back = left_over = 0
    for block in blocks(length, left, right, leading):
        pairs += block.queries * block.keys
        copied = batch * block.keys * key_width if block.leading else 0
        scores = 2 * rows * block.queries * block.keys
        if heads_per_key > 1:  # the block's queries and what hides keys, for all that share one
            copied += batch * block.queries * width
            copied += 0 if biased else heads_per_key * block.queries * block.keys
        if biased and (batch > 1 or heads_per_key > 1):
            copied += rows * block.queries * block.keys
        tile = max(tile, scores + copied)
        # what it adds to gradients of keys, its queries and theirs; the block before is left over
        added = batch * (block.keys * key_width + block.queries * width)
        back = max(back, scores + copied + max(added, left_over))
        left_over = scores
    band = (heads if biased else 1) * min(BLOCK, length) * (BLOCK + left + right)
    back += (2 if biased else 1) * band
    dense = 2 * tokens * (width + key_width)  # queries, keys, values, what came of them
    flops = 2 * tokens * parameters + 4 * batch * width * pairs
    return Cost(
        parameters,
        flops,
        flops,
        live_bytes=FLOAT_BYTES * (dense + tile + band),
        saved_bytes=FLOAT_BYTES * dense,
        # gradients of all of them, one of them twice, in another order
        backward_bytes=FLOAT_BYTES * (2 * dense + tokens * (width + heads) + back),
        backward_extra=2 * batch * width * pairs,  # the weights again
    )
