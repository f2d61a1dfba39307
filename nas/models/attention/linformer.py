"""Linformer: keys and values shortened from N to k positions.

Shapes: B batch, N sequence, H heads, D width, E head width, K rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot
from nas.models.positions import Rotation
from search_spaces.attention.linformer import LinformerAttention
from search_spaces.errors import InvalidInput, Problem


class Linformer(Attention[LinformerAttention], spec=LinformerAttention):
    """Softmax(Q(EK)ᵀ)FV; E and F are shared by the heads of a layer."""

    def __init__(self, spec: LinformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.shorten = nn.Parameter(torch.empty(2, spec.rank, slot.max_length))
        nn.init.normal_(self.shorten, std=1 / math.sqrt(slot.max_length))

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        B, N, D = x.shape
        if self.max_length < N:
            message = f"{N} tokens, but the projection was made for {self.max_length}"
            raise InvalidInput([Problem("", message)])
        w_q, w_k, w_v = self.qkv.weight.chunk(3)
        q = functional.linear(x, w_q)
        source = x if mask is None else x * mask.unsqueeze(-1)
        # (Ex)W = E(xW): shortening first leaves K rows to project instead of N
        short = torch.matmul(self.shorten[:, :, :N].flatten(0, 1), source).view(B, 2, -1, D)
        k, v = functional.linear(short[:, 0], w_k), functional.linear(short[:, 1], w_v)
        q, k, v = (t.view(B, -1, self.heads, self.head_width).transpose(1, 2) for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
