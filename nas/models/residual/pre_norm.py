"""Pre-norm layers.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nas.models.positions import Rotation
from nas.models.residual.base import Context, Ran, ResidualLayer
from search_spaces.residual.pre_norm import PreNorm


class PreNormLayer(ResidualLayer, spec=PreNorm):
    """x ← x + attention(norm(x)); x ← x + feedforward(norm(x))."""

    def forward(self, stream: Tensor, context: Context) -> Ran:
        """(B, N, D) → (B, N, D)."""
        y, memory = self.mix(stream, context)
        x = stream + y
        del y  # before the second block takes memory of its own
        y, loss = self.feed(x, context.mask)
        return Ran(x + y, loss, memory)

    def extend(
        self, stream: Tensor, state: Any, rotation: Rotation | None = None
    ) -> tuple[Tensor, Any]:
        """The same for N more tokens after ``state``, and the state after them."""
        attention, feedforward = state
        y, attention = self._extend_mix(stream, attention, rotation)
        x = stream + y
        y, feedforward = self._extend_feed(x, feedforward)
        return x + y, (attention, feedforward)

    def absorb(self, stream: Tensor, state: Any, rotation: Rotation | None = None) -> Any:
        """The state after N more tokens whose own output nobody needs."""
        attention, feedforward = state
        if feedforward is not None:
            return self.extend(stream, state, rotation)[1]
        return self.attention.absorb(self.attention_norm(stream), attention, rotation), None
