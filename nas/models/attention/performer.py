"""FAVOR+: softmax attention by positive orthogonal random features.

Shapes: B batch, N sequence, H heads, P = B·H, E head width, M features,
L span.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from nas.models.attention.base import AttentionSlot
from nas.models.attention.kernel import FeatureMap, KernelAttention
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

    def _map(self, dtype: torch.dtype) -> FeatureMap:
        return PositiveFeatures(self.omega.to(dtype), self.heads)


class PositiveFeatures:
    """exp(ωᵀx - ‖x‖²/2), but for factors that cancel, with rows ω (M, E) that have no gradient."""

    def __init__(self, omega: Tensor, heads: int) -> None:
        self.number, self.heads = omega.shape[0], heads
        self.scale = omega.shape[1] ** -0.25  # of queries and keys, so that √E divides products
        self.rows = omega * self.scale

    def memory(self, qkv: Tensor) -> Tensor:
        """Beside (B, N, 3, H, E), memory in which a span's lie together."""
        B, N, _, H, _ = qkv.shape
        return qkv.new_empty(N, 2 * B * H * self.number)

    def places(self, memory: Tensor, c: slice) -> tuple[Tensor, Tensor]:
        """Views (B, H, L, M)."""
        q, k = memory[c].view(2, -1, self.heads, c.stop - c.start, self.number).unbind()
        return q, k

    def make(self, qkv: Tensor, memory: Tensor, c: slice) -> None:
        """Write a span's features.

        A factor common to all features of one query cancels: ‖q‖²/2 is left out, and each query is
        held by its own maximum. A factor of the keys must be the same for all, and known before any
        of them: it is 1. Beyond the bound the gradient goes on as if without it.
        """
        x = qkv[:, c, :2].permute(2, 0, 3, 1, 4).reshape(-1, qkv.shape[-1])
        y = memory[c].view(-1, self.number)
        torch.mm(x, self.rows.mT, out=y)
        q, k = y.chunk(2)
        q.sub_(q.amax(dim=-1, keepdim=True))
        half = torch.linalg.vector_norm(x.chunk(2)[1], dim=-1, keepdim=True).square_()
        k.sub_(half, alpha=self.scale**2 / 2).clamp_max_(LARGEST)
        y.exp_()

    def through_queries(self, d: Tensor, y: Tensor, into: Tensor) -> None:
        """From the gradient of features y, both (P, L, M), that of queries (B, H, L, E)."""
        into.copy_(torch.matmul(d.mul_(y), self.rows).view(into.shape))

    def through_keys(self, d: Tensor, y: Tensor, x: Tensor, into: Tensor) -> None:
        """The same for keys x (B, H, L, E)."""
        self.through_queries(d, y, into)
        common = d.sum(dim=-1).view(*x.shape[:3], 1)  # by now of exponents
        into.addcmul_(common, x, value=-(self.scale**2))


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
