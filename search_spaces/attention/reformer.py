"""Reformer: attention within buckets of a locality-sensitive hash."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain

TILE = 2**17
"""Scores that are computed together, unless one sequence's chunk has more."""

UNFACTORED = 16
"""Buckets that one hash tells apart; more are pairs of two hashes, so that hashing stays cheap."""

BUCKET_BYTES = 4


def factors(length: int, chunk: int, causal: bool) -> tuple[int, ...]:
    """Even numbers of buckets; their product is near N / chunk, or half that when causal.

    None if one bucket is enough. Causal chunks begin where buckets do, so many small buckets would
    leave many chunks almost empty, and a query sees no more than two chunks in any case.
    """
    wanted = -(-length // (2 * chunk if causal else chunk))
    if wanted == 1:
        return ()
    if wanted <= UNFACTORED:
        return (_even(wanted),)
    first = _even(math.isqrt(wanted - 1) + 1)
    return first, _even(-(-wanted // first))


def _even(count: int) -> int:
    return count + count % 2


class Layout(NamedTuple):
    """Chunks that the tokens of one sequence, sorted by bucket, are cut into.

    size: C, tokens of a chunk.  chunks: of one head of one sequence.  buckets: one more than are
    hashed to if there is padding.  causal: chunks begin where buckets begin.
    """

    size: int
    chunks: int
    buckets: int
    causal: bool

    @property
    def slots(self) -> int:
        """Places for the tokens of one head of one sequence."""
        return self.chunks * self.size

    def together(self, rows: int) -> int:
        """Rows, heads of a sequence, that are sorted together."""
        return max(1, min(rows, TILE // (2 * self.slots * self.size)))

    def slice(self, chunks: int) -> int:
        """Chunks whose scores are computed together."""
        return max(1, min(chunks, TILE // (2 * self.size * self.size)))


def layout(length: int, chunk: int, buckets: int, causal: bool) -> Layout:
    """The chunks of N tokens; as many as any assignment to buckets can need."""
    size = min(chunk, length)
    rest = min(buckets, length) * (size - 1) if causal else size - 1
    return Layout(size, (length + rest) // size, buckets, causal)


class ReformerAttention(AttentionSpec):
    """Queries that are their own keys see those of their bucket, in the own and the previous chunk
    of ``chunk`` tokens sorted by bucket, in any of ``hashes`` rounds of hashing."""

    title: ClassVar[str] = "Reformer"
    family: ClassVar[Family] = "hashing"
    complexity: ClassVar[str] = "O(N·log N·hashes)"
    citation: ClassVar[str] = "Kitaev et al. 2020, arXiv:2001.04451"
    causal: ClassVar[bool] = True
    decoding: ClassVar[Decoding] = "recompute"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["reformer"] = "reformer"
    chunk: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128))] = 64
    hashes: Annotated[int, Field(ge=1), Domain((1, 2, 4, 8))] = 4

    @property
    def widens(self) -> bool:
        """Rounding would send tokens to other buckets."""
        return True

    def rounds(self, length: int, causal: bool) -> int:
        """Rounds of hashing that differ: one bucket needs no second."""
        return self.hashes if factors(length, self.chunk, causal) else 1

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Three projections, the hashes, and chunks of queries with twice as many keys."""
        parameters = 3 * width * width
        sizes, rounds = factors(length, self.chunk, causal), self.rounds(length, causal)
        cut = layout(length, self.chunk, math.prod(sizes), causal)
        flops = 2 * batch * length * parameters
        hashing = batch * length * width * rounds * sum(sizes)
        scoring = 4 * batch * width * rounds * cut.chunks * cut.size * cut.size
        flops += hashing + 2 * scoring
        dense, tokens = batch * length * width, batch * length * heads
        together = cut.together(batch * heads)
        places, taken = together * cut.slots, together * length
        keys = 2 * cut.size * cut.size
        tile = cut.slice(together * cut.chunks) * keys
        # projections and output; buckets, slots and codes; what is sorted and comes back sorted
        live = 3 * dense + tokens * 4 * rounds
        live += (4 * places + 2 * cut.size + taken) * width // heads
        live += places * (2 * rounds + 3) + 5 * taken + 3 * tile + keys
        live += max(2 * places, taken * width // heads)
        saved = FLOAT_BYTES * (3 * dense + rounds * tokens) + BUCKET_BYTES * 2 * rounds * tokens
        # gradients of output, queries and values; shares of rounds; what is sorted, and gradients
        back = 3 * dense + (rounds + 1) * tokens + 3 * tile
        back += (7 * places + 3 * cut.size + 3 * taken) * width // heads
        back += places * (2 * rounds + 4) + 5 * taken + keys
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * live,
            saved_bytes=saved,
            backward_bytes=saved + FLOAT_BYTES * back,
            backward_extra=scoring - 2 * hashing,  # the weights again; buckets have no gradient
            choice_flops=hashing,
            choice_bytes=BUCKET_BYTES * rounds * tokens,
        )
