"""Normalisation over the width.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from search_spaces.architecture import Norm

EPSILON = 1e-5


def build_norm(kind: Norm, width: int) -> nn.Module:
    """(..., D) → (..., D) with a learned scale (layer_norm: and shift)."""
    return nn.LayerNorm(width, eps=EPSILON) if kind == "layer_norm" else RMSNorm(width)


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) ⊙ weight (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        return _apply(x, self.weight)


class _RMSNorm(Function):
    """PyTorch's own is made of parts on CPUs: slower, and it keeps the normed x beside x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        square = torch.linalg.vecdot(x, x).div_(x.shape[-1])
        inverse = square.add_(EPSILON).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, inverse)
        normed: Tensor = x * inverse
        return normed.mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, inverse = ctx.saved_tensors
        normed = x * inverse
        product = grad * normed
        along = (product @ weight).div_(-x.shape[-1]).unsqueeze(-1)
        dx = (grad * weight).addcmul_(normed, along).mul_(inverse)
        return dx, product.flatten(0, -2).sum(dim=0)


_apply: Callable[..., Tensor] = _RMSNorm.apply
