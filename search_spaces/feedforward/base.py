"""What every feed-forward spec states."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from search_spaces.cost import Cost
from search_spaces.values import Spec


class FeedForwardSpec(Spec):
    """The second block of a layer: (B, N, D) → (B, N, D)."""

    kind: ClassVar[str] = "feedforward"
    position_wise: ClassVar[bool] = True
    """Whether each position's output depends on that position alone."""

    @abstractmethod
    def cost(self, batch: int, length: int, width: int, causal: bool) -> Cost:
        """What a forward pass of a (B, N, D) batch costs.

        ``live_bytes`` and ``saved_bytes`` too are the most that data lead to. The module is one
        built for sequences of at most this length.
        """

    def state_bytes(self, width: int) -> int:
        """What decoding keeps of one sequence, however long it is."""
        return 0

    def active_parameters(self, width: int, causal: bool = True) -> int:
        """Of the parameters, those that one token meets."""
        return self.cost(1, 1, width, causal).parameters
