"""What every residual module offers: one layer, two blocks joined to the stream.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from nas.models.attention.base import Attention
from nas.models.feedforward.base import FeedForward
from nas.models.mechanism import Mechanism
from nas.models.positions import Rotation


class ResidualLayer(Mechanism):
    """One layer, (B, N, D) → (B, N, D)."""

    attention: Attention[Any]
    feedforward: FeedForward[Any]

    @abstractmethod
    def forward(
        self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None
    ) -> Tensor:
        """(B, N, D) → (B, N, D); mask (B, N), True = valid."""

    def init_state(self, batch_size: int) -> tuple[Any, Any]:
        """The states of both blocks before the first token."""
        return self.attention.init_state(batch_size), self.feedforward.init_state(batch_size)

    @abstractmethod
    def extend(self, x: Tensor, state: Any, rotation: Rotation | None = None) -> tuple[Tensor, Any]:
        """The same for N more tokens after a state, and the state after them."""

    @abstractmethod
    def absorb(self, x: Tensor, state: Any, rotation: Rotation | None = None) -> Any:
        """The state after N more tokens whose own output nobody needs."""
