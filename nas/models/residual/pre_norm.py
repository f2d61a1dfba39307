"""Pre-norm layers.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nas.models.attention.base import Attention
from nas.models.feedforward.base import FeedForward
from nas.models.norms import build_norm
from nas.models.positions import Rotation
from nas.models.residual.base import ResidualLayer
from search_spaces.architecture import Norm
from search_spaces.residual.pre_norm import PreNorm


class PreNormLayer(ResidualLayer, spec=PreNorm):
    """x ← x + attention(norm(x)); x ← x + feedforward(norm(x))."""

    def __init__(
        self,
        spec: PreNorm,
        *,
        attention: Attention[Any],
        feedforward: FeedForward[Any],
        norm: Norm,
        d_model: int,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.attention_norm = build_norm(norm, d_model)
        self.attention = attention
        self.feedforward_norm = build_norm(norm, d_model)
        self.feedforward = feedforward

    def forward(
        self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None
    ) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        x = x + self.attention(self.attention_norm(x), mask, rotation)
        y: Tensor = x + self.feedforward(self.feedforward_norm(x), mask)
        return y

    def extend(self, x: Tensor, state: Any, rotation: Rotation | None = None) -> tuple[Tensor, Any]:
        """The same for N more tokens after ``state``, and the state after them."""
        attention, feedforward = state
        y, attention = self.attention.extend(self.attention_norm(x), attention, rotation)
        x = x + y
        y, feedforward = self.feedforward.extend(self.feedforward_norm(x), feedforward)
        return x + y, (attention, feedforward)

    def absorb(self, x: Tensor, state: Any, rotation: Rotation | None = None) -> Any:
        """The state after N more tokens whose own output nobody needs."""
        attention, feedforward = state
        if feedforward is not None:
            return self.extend(x, state, rotation)[1]
        return self.attention.absorb(self.attention_norm(x), attention, rotation), None
