"""FAVOR+: softmax attention by positive orthogonal random features.

Shapes: B batch, N sequence, H heads, P = B·H, E head width, M features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas.models.attention.base import AttentionSlot
from nas.models.attention.kernel import KernelAttention
from search_spaces.attention.performer import PerformerAttention

LARGEST = 60.0  # the exponent reaches ‖ω‖²/2; exp(60), summed over any N, is far from overflow


class Performer(KernelAttention[PerformerAttention], spec=PerformerAttention):
    """Φ(Q)(φ(K)ᵀV), normalised, φ(x) = exp(ωᵀx - ‖x‖²/2)/√M (lemma 1 and section 2.4)."""

    epsilon: ClassVar[float] = 1e-25
    omega: Tensor

    def __init__(self, spec: PerformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.register_buffer("omega", torch.empty(spec.features, self.head_width))
        self.resample(int(torch.randint(2**31 - 1, ())))

    def resample(self, seed: int) -> None:
        """Draw other features; the same seed gives the same ones."""
        drawn = orthogonal_features(self.spec.features, self.head_width, seed)
        with torch.no_grad():
            self.omega.copy_(drawn)

    @property
    def features(self) -> int:
        """M."""
        return self.spec.features

    def _features(self, qk: Tensor) -> tuple[Tensor, Tensor]:
        q, k = qk.unbind()
        scale = self.head_width**-0.25
        half = torch.linalg.vecdot(k, k).unsqueeze(-1) * (scale * scale / 2)
        omega = self.omega.t().to(q.dtype) * scale
        # a factor common to all features of one query cancels: ‖q‖²/2 is left out, and each query
        # is held by its own maximum
        q = q @ omega
        q = q.sub_(q.detach().amax(dim=-1, keepdim=True)).exp_()
        # a factor of the keys must be the same for all, and known before any of them: it is 1
        return q, _apply((k @ omega).sub_(half))


class _BoundedExp(Function):
    """exp(min(x, LARGEST)) written over x; beyond, the gradient goes on as if without the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_max_(LARGEST).exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope: Tensor = grad * y
        return slope


_apply: Callable[..., Tensor] = _BoundedExp.apply


def orthogonal_features(features: int, width: int, seed: int) -> Tensor:
    """(M, E) Gaussian rows, orthogonal within each group of E."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(-(-features // width)):
        square = torch.randn(width, width, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(square)
        rows.append((q * r.diagonal().sign()).t())
    norms = torch.randn(features, width, generator=generator, dtype=torch.float64).norm(dim=1)
    drawn: Tensor = torch.cat(rows)[:features] * norms.unsqueeze(1)
    return drawn.float()
