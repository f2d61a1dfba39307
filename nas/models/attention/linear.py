"""Linear attention with elu + 1 features.

Shapes: B batch, N sequence, H heads, P = B·H, E head width, M = E features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from nas.models.attention.kernel import KernelAttention
from search_spaces.attention.linear import LinearAttention


class Linear(KernelAttention[LinearAttention], spec=LinearAttention):
    """Φ(Q)(φ(K)ᵀV), normalised, φ = elu + 1."""

    epsilon: ClassVar[float] = 1e-6

    @property
    def features(self) -> int:
        """M = E."""
        return self.head_width

    def _features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return functional.elu(q).add_(1), functional.elu(k).add_(1)
