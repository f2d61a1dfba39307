"""What every feed-forward module offers.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

from torch import Tensor, nn

from nas.models.mechanism import Mechanism
from search_spaces.feedforward.base import FeedForwardSpec

S = TypeVar("S", bound=FeedForwardSpec)


class FeedForward(Mechanism, Generic[S]):
    """A position-wise block, (B, N, D) → (B, N, D), that ends in the projection ``out``."""

    out: nn.Linear

    def __init__(self, spec: S, *, d_model: int, causal: bool) -> None:
        super().__init__()
        self.spec = spec
        self.causal = causal

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
