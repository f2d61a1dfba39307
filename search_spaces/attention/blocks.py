"""Blocks of queries with the ranges of keys that they see: how they are cut, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from search_spaces.cost import FLOAT_BYTES, Cost

TILE = 2**17
"""Scores that are computed together, unless one head's block has more."""


class Range(NamedTuple):
    """Rows [first, last) of the keys; those of ``summary`` stand apart from the sequence's own."""

    first: int
    last: int
    summary: bool = False


class Tile(NamedTuple):
    """Queries [start, stop) and the keys that they see, no key in two ranges.

    offset: place of the first query among those that start with the last range's first key.
    """

    start: int
    stop: int
    keys: tuple[Range, ...]
    offset: int = 0

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.stop - self.start

    @property
    def seen(self) -> int:
        """Number of keys."""
        return sum(r.last - r.first for r in self.keys)


def joined(ranges: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    """The same rows in as few ranges as possible; empty ones and repetitions are left out."""
    whole: list[Range] = []
    for first, last in sorted(r for r in ranges if r[0] < r[1]):
        if whole and first <= whole[-1].last:
            whole[-1] = Range(whole[-1].first, max(last, whole[-1].last))
        else:
            whole.append(Range(first, last))
    return tuple(whole)


class Group(NamedTuple):
    """Sequences and heads of each that are handled together."""

    batch: slice
    heads: slice


def groups(batch: int, heads: int, scores: int) -> Iterator[Group]:
    """All heads of all sequences, each of which has so many scores, in groups."""
    sequences, together = _together(batch, heads, scores)
    for b in range(0, batch, sequences):
        for h in range(0, heads, together):
            yield Group(slice(b, min(b + sequences, batch)), slice(h, min(h + together, heads)))


def largest_group(batch: int, heads: int, scores: int) -> int:
    """Heads, of all sequences together, in the largest of these groups."""
    sequences, together = _together(batch, heads, scores)
    return sequences * together


def _together(batch: int, heads: int, scores: int) -> tuple[int, int]:
    most = max(1, TILE // max(1, scores))
    return max(1, min(batch, most // heads)), min(heads, most)


def memory(batch: int, heads: int, tiles: Sequence[Tile], both: bool) -> tuple[int, int]:
    """Most scores of a group and tile, and most rows of keys.

    both: gradients are computed too, for which even keys that lie together need room.
    """
    scores = rows = 0
    for t in tiles:
        size = largest_group(batch, heads, t.queries * t.seen)
        scores = max(scores, size * t.queries * t.seen)
        if both or len(t.keys) > 1:
            rows = max(rows, size * t.seen)
    return scores, rows


def tiled_cost(
    batch: int,
    length: int,
    width: int,
    heads: int,
    tiles: Sequence[Tile],
    *,
    summaries: int = 0,
    biases: int = 0,
) -> Cost:
    """Projections, and the products of each tile's queries with its keys.

    summaries: rows of keys that stand apart.  biases: numbers in the bias that all tiles share.
    """
    parameters = 4 * width * width
    mixed = pairs = most = 0
    for t in tiles:
        pairs += t.queries * t.seen
        size = largest_group(batch, heads, t.queries * t.seen)
        out = size * t.queries * width // heads
        most = max(most, out)
        mixed = max(mixed, out, t.queries * t.seen if biases else 0)
    scores, rows = memory(batch, heads, tiles, both=False)
    tile = scores + rows * width // heads + mixed
    tokens = batch * length
    flops = 2 * tokens * parameters + 4 * batch * width * pairs
    dense, apart = 4 * tokens * width, 2 * batch * summaries * width
    kept = dense + apart + biases + 2 * tokens * heads
    # gradients of all of them, one of them twice: divided by the mass; and two tiles at once
    gradients = dense + apart + tokens * (width + heads)
    scores, rows = memory(batch, heads, tiles, both=True)
    gradients += 2 * (scores + rows * width // heads) + most
    return Cost(
        parameters,
        flops,
        flops,
        live_bytes=FLOAT_BYTES * (kept + tile),
        saved_bytes=FLOAT_BYTES * kept,
        backward_bytes=FLOAT_BYTES * (kept + gradients),
        backward_extra=2 * batch * width * pairs,  # the weights again
    )
