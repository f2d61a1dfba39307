"""What every attention (token mixing) spec states."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, TypeAlias

from search_spaces.cost import Cost
from search_spaces.values import Spec

Position: TypeAlias = Literal["none", "sinusoidal", "learned", "rotary"]
Family: TypeAlias = Literal["full", "sparse", "low-rank", "kernel", "recurrence", "hashing"]

ADDED_POSITIONS: frozenset[Position] = frozenset({"none", "sinusoidal", "learned"})
"""Positions that are added to the embeddings: every mechanism takes them."""


class AttentionSpec(Spec):
    """A token-mixing mechanism: (B, N, D) → (B, N, D)."""

    kind: ClassVar[str] = "attention"
    family: ClassVar[Family]
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS
    decoding: ClassVar[Literal["cache", "state", "none"]]
    """What one decoding step needs: a growing cache, a constant state, or it does not decode."""

    @abstractmethod
    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """What a forward pass of a (B, N, D) batch costs, projections included.

        ``parameters`` are those of a module built for sequences of at most this length.
        """
