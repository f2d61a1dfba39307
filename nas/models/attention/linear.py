"""Linear attention with elu + 1 features.

Shapes: B batch, N sequence, H heads, P = B·H, E head width, M = E features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
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

    def _features(self, qk: Tensor) -> tuple[Tensor, Tensor]:
        q, k = _apply(qk).unbind()
        return q, k


class _PositiveElu(Function):
    """Elu(x) + 1 written over x: its gradient, exp(x) or 1, is the smaller of the result and 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = functional.elu(x, inplace=True).add_(1)
        ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope: Tensor = y.clamp_max(1)
        return slope.mul_(grad)


_apply: Callable[..., Tensor] = _PositiveElu.apply
