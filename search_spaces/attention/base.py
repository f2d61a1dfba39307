"""What every attention (token mixing) spec states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self, TypeAlias

from search_spaces.cost import COMPLEX_BYTES, FLOAT_BYTES, Cost
from search_spaces.values import Spec

Position: TypeAlias = Literal["none", "sinusoidal", "learned", "rotary", "alibi", "relative"]
Family: TypeAlias = Literal["full", "sparse", "low-rank", "kernel", "recurrence", "hashing"]

ADDED_POSITIONS: frozenset[Position] = frozenset({"none", "sinusoidal", "learned"})
"""Positions that are added to the embeddings: every mechanism takes them."""

BIASES: frozenset[Position] = frozenset({"alibi", "relative"})
"""Positions that are biases on the scores of queries and keys, by their distance."""

RELATIVE_BUCKETS = 32
"""Buckets of distances that learned relative biases tell apart."""

Decoding: TypeAlias = Literal["cache", "state", "recompute", "none"]


class AttentionSpec(Spec):
    """A token-mixing mechanism: (B, N, D) → (B, N, D)."""

    kind: ClassVar[str] = "attention"
    family: ClassVar[Family]
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS
    decoding: ClassVar[Decoding]
    """What one decoding step needs: a growing cache, a constant state, all inputs so far, which it
    computes again, or it does not decode."""
    memory_exponent: ClassVar[float] = 1.0
    """With its default settings, up to 32,768 positions, the memory of a forward and a backward
    pass grows at most with this power of N."""

    def at(self, layer: int) -> Self:
        """The mechanism as it stands in that layer (from 0) of the cycle."""
        return self

    @property
    def heads_per_key(self) -> int:
        """How many heads of queries share one of keys and values; it must divide their number."""
        return 1

    @property
    def widens(self) -> bool:
        """Whether it mixes in single precision even where products are in half of it."""
        return False

    def position_parameters(self, position: Position, heads: int) -> int:
        """Trainable scalars that these positions add to the module; not part of ``cost``."""
        learned = position == "relative" and position in self.positions
        return RELATIVE_BUCKETS * heads if learned else 0

    def shared_parameters(self, length: int, width: int) -> Mapping[str, int]:
        """Of the parameters in ``cost``, those that all layers of a model share, by name."""
        return {}

    def state_bytes(self, length: int, width: int, heads: int, position: Position) -> int:
        """What decoding keeps of one sequence of N tokens; 0 if the mechanism does not decode.

        Here: all keys and values, or all inputs and their rotary angles.
        """
        if self.decoding == "cache":
            return 2 * FLOAT_BYTES * length * (width // self.heads_per_key)
        if self.decoding == "recompute":
            turned = position == "rotary" and position in self.positions
            angles = COMPLEX_BYTES * (width // heads // 2) if turned else 0
            return length * (FLOAT_BYTES * width + angles)
        return 0

    def placed_cost(
        self, batch: int, length: int, width: int, heads: int, causal: bool, position: Position
    ) -> Cost:
        """``cost`` in a model with these positions, which may be the mechanism's own work."""
        return self.cost(batch, length, width, heads, causal)

    @abstractmethod
    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """What a forward pass of a (B, N, D) batch costs, projections included.

        ``parameters`` are those of a module built for sequences of at most this length.
        """
