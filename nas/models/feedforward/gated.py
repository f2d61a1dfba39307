"""GEGLU and SwiGLU.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from nas.models.feedforward.base import FeedForward, FeedForwardSlot
from search_spaces.feedforward.gated import GatedFeedForward

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "silu": functional.silu,
}


class Gated(FeedForward[GatedFeedForward], spec=GatedFeedForward):
    """W₂ (g(W₁ x) ⊙ V x)."""

    def __init__(self, spec: GatedFeedForward, slot: FeedForwardSlot) -> None:
        super().__init__(spec, slot)
        d_model, inner = slot.d_model, spec.inner(slot.d_model)
        self.activation = ACTIVATIONS[spec.activation]
        self.gate = nn.Linear(d_model, inner, bias=False)
        self.value = nn.Linear(d_model, inner, bias=False)
        self.out = nn.Linear(inner, d_model, bias=False)
        for linear in (self.gate, self.value):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d_model))
        nn.init.normal_(self.out.weight, std=1 / math.sqrt(inner))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        y: Tensor = self.out(self.activation(self.gate(x)) * self.value(x))
        return y

    def last_projections(self) -> tuple[nn.Linear, ...]:
        """``out``."""
        return (self.out,)
