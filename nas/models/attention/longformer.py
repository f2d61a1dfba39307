"""Longformer: a sliding window, in encoders with leading global positions.

Shapes: B batch, N sequence, H heads, D width, E head width, G global positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas.models.attention.base import AttentionSlot
from nas.models.attention.local import LocalAttention
from nas.models.attention.window import HIDDEN
from nas.models.positions import Rotation
from search_spaces.attention.longformer import LongformerAttention


class Longformer(LocalAttention[LongformerAttention], spec=LongformerAttention):
    """A window of ``window`` keys on each side; the ``globals`` first positions see all by
    projections of their own and are seen by all (section 3.1)."""

    def __init__(self, spec: LongformerAttention, slot: AttentionSlot) -> None:
        leading = 0 if slot.causal else spec.globals
        super().__init__(spec, slot, spec.window, leading)
        self.leading = leading
        self.global_qkv: nn.Linear | None = None
        if leading:
            self.global_qkv = nn.Linear(slot.d_model, 3 * slot.d_model, bias=False)
            nn.init.normal_(self.global_qkv.weight, std=1 / math.sqrt(slot.d_model))

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        mixed = super()._mix(x, mask, rotation)
        if self.global_qkv is None:
            return mixed
        first = self._mix_leading(self.global_qkv.weight, x, mask)
        return torch.cat((first, mixed[:, first.shape[1] :]), dim=1)

    def _mix_leading(self, weight: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """What the global positions see, (B, globals, D); without rotary angles and biases.

        Few queries see all N positions, so their projections go to the queries' side:
        q·(W_k x) = (W_kᵀq)·x, and Σ p (W_v x) = W_v Σ p x; no position is projected to a key.
        """
        B, _, D = x.shape
        H, E = self.heads, self.head_width
        w_q, w_k, w_v = weight.view(3, H, E, D).unbind()
        own = x[:, : self.leading].flatten(0, 1)  # (B·G, D)
        G = own.shape[0] // B
        q = torch.matmul(own, w_q.transpose(1, 2)).div_(math.sqrt(E))  # (H, B·G, E)
        q = torch.bmm(q, w_k).view(H, B, G, D).transpose(0, 1).reshape(B, H * G, D)
        scores = torch.bmm(q, x.transpose(1, 2))
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), HIDDEN)
        seen = torch.bmm(scores.softmax(dim=-1), x)
        seen = seen.view(B, H, G, D).transpose(0, 1).reshape(H, B * G, D)
        mixed = torch.bmm(seen, w_v.transpose(1, 2))  # (H, B·G, E)
        return mixed.transpose(0, 1).reshape(B, G, D)
