"""What every feed-forward spec states."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from search_spaces.cost import Cost
from search_spaces.values import Spec


class FeedForwardSpec(Spec):
    """A position-wise block: (B, N, D) → (B, N, D)."""

    kind: ClassVar[str] = "feedforward"

    @abstractmethod
    def cost(self, batch: int, length: int, width: int, causal: bool) -> Cost:
        """What a forward pass of a (B, N, D) batch costs."""
