"""What every attention (token mixing) spec states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self, TypeAlias

from search_spaces.cost import Cost
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

    def at(self, layer: int) -> Self:
        """The mechanism as it stands in that layer (from 0) of the cycle."""
        return self

    @property
    def heads_per_key(self) -> int:
        """How many heads of queries share one of keys and values; it must divide their number."""
        return 1

    def position_parameters(self, position: Position, heads: int) -> int:
        """Trainable scalars that these positions add to the module; not part of ``cost``."""
        learned = position == "relative" and position in self.positions
        return RELATIVE_BUCKETS * heads if learned else 0

    def shared_parameters(self, length: int, width: int) -> Mapping[str, int]:
        """Of the parameters in ``cost``, those that all layers of a model share, by name."""
        return {}

    @abstractmethod
    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """What a forward pass of a (B, N, D) batch costs, projections included.

        ``parameters`` are those of a module built for sequences of at most this length.
        """
