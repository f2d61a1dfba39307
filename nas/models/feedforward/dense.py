"""The feed-forward block of the first Transformer, with GELU.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from nas.models.feedforward.base import FeedForward, FeedForwardSlot
from search_spaces.feedforward.dense import DenseFeedForward


class Dense(FeedForward[DenseFeedForward], spec=DenseFeedForward):
    """W₂ gelu(W₁ x)."""

    def __init__(self, spec: DenseFeedForward, slot: FeedForwardSlot) -> None:
        super().__init__(spec, slot)
        d_model, inner = slot.d_model, spec.inner(slot.d_model)
        self.inner = nn.Linear(d_model, inner, bias=False)
        self.out = nn.Linear(inner, d_model, bias=False)
        nn.init.normal_(self.inner.weight, std=1 / math.sqrt(d_model))
        nn.init.normal_(self.out.weight, std=1 / math.sqrt(inner))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        y: Tensor = self.out(functional.gelu(self.inner(x)))
        return y

    def last_projections(self) -> tuple[nn.Linear, ...]:
        """``out``."""
        return (self.out,)
