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
from nas.models.positions import Rotation
from nas.models.replay import remembered
from search_spaces.attention.performer import PerformerAttention

LARGEST = 60.0  # the exponent reaches ‖ω‖²/2; exp(60), summed over any N, is far from overflow


class Performer(KernelAttention[PerformerAttention], spec=PerformerAttention):
    """Φ(Q)(φ(K)ᵀV), normalised, φ(x) = exp(ωᵀx - ‖x‖²/2)/√M (lemma 1 and section 2.4)."""

    epsilon: ClassVar[float] = 1e-25
    omega: Tensor
    seed: Tensor
    passes: Tensor

    def __init__(self, spec: PerformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.register_buffer("omega", torch.empty(spec.features, self.head_width))
        if spec.redraw:
            # integers in the state dict: training that goes on from there draws the same
            self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
            self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.resample(int(torch.randint(2**31 - 1, ())))

    def resample(self, seed: int) -> None:
        """Draw other features; the same seed gives the same ones, and the same redraws."""
        if self.spec.redraw:
            self.seed.fill_(seed)
            self.passes.zero_()
        with torch.no_grad():
            self.omega.copy_(self._drawn(seed))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotation: Rotation | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """(B, N, D) → (B, N, D); in training with new features whenever they are due."""
        if not (self.training and self.spec.redraw):
            return super().forward(x, mask, rotation, memory)
        made = int(self.passes)
        number = int(remembered(self._count))
        draw = number // self.spec.redraw
        if number == made and number and number % self.spec.redraw == 0:
            with torch.no_grad():
                self.omega.copy_(self._drawn(redraw_seed(int(self.seed), draw)))
        elif number < made and draw != (made - 1) // self.spec.redraw:
            present = self.omega
            self.omega = self._drawn(redraw_seed(int(self.seed), draw)).to(present)
            try:
                return super().forward(x, mask, rotation, memory)
            finally:
                self.omega = present
        return super().forward(x, mask, rotation, memory)

    def _count(self) -> Tensor:
        """The number of this training pass, from 0; a pass made again is told its old one."""
        number = self.passes.clone()
        self.passes.add_(1)
        return number

    def _drawn(self, seed: int) -> Tensor:
        return orthogonal_features(self.spec.features, self.head_width, seed)

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


def redraw_seed(first: int, draw: int) -> int:
    """The seed of a draw (from 0); 2³² draws in turn have 2³² seeds."""
    return (first + draw * 0x9E3779B1) % 2**32


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
