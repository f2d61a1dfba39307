"""Linear attention with elu + 1 features.

Shapes: B batch, N sequence, H heads, P = B·H, E head width, M = E features, L span.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from nas.models.attention.kernel import FeatureMap, KernelAttention
from search_spaces.attention.linear import LinearAttention


class Linear(KernelAttention[LinearAttention], spec=LinearAttention):
    """Φ(Q)(φ(K)ᵀV), normalised, φ = elu + 1."""

    epsilon: ClassVar[float] = 1e-6

    @property
    def features(self) -> int:
        """M = E."""
        return self.head_width

    def _map(self, dtype: torch.dtype) -> FeatureMap:
        return PositiveElu(self.head_width)


class PositiveElu:
    """elu(x) + 1 written over x: its gradient, exp(x) or 1, is the smaller of the result and 1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def memory(self, qkv: Tensor) -> Tensor:
        """That of (B, N, 3, H, E) itself."""
        return qkv

    def places(self, memory: Tensor, c: slice) -> tuple[Tensor, Tensor]:
        """Views (B, H, L, E)."""
        q, k, _ = memory[:, c].permute(2, 0, 3, 1, 4).unbind()
        return q, k

    def make(self, qkv: Tensor, memory: Tensor, c: slice) -> None:
        """Write features over queries and keys."""
        x = qkv[:, c, :2]
        below = x.clamp_max(0).exp_()  # PyTorch's elu is slower, and less exact near 0
        x.clamp_min_(0).add_(below)

    def through_queries(self, d: Tensor, y: Tensor, into: Tensor) -> None:
        """From the gradient of features y, both (P, L, E), that of queries (B, H, L, E)."""
        torch.mul(d.view(into.shape), y.clamp_max(1).view(into.shape), out=into)

    def through_keys(self, d: Tensor, y: Tensor, x: Tensor, into: Tensor) -> None:
        """The same for keys, which have been overwritten."""
        self.through_queries(d, y, into)
