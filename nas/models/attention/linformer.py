"""Linformer: keys and values shortened from N to k positions.

Shapes: B batch, N sequence, H heads, D width, E head width, K rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot, Shared
from nas.models.positions import Rotation
from search_spaces.attention.linformer import LinformerAttention
from search_spaces.errors import InvalidInput, Problem


class Linformer(Attention[LinformerAttention], spec=LinformerAttention):
    """Softmax(Q(EK)ᵀ)FV; E and F are shared by the heads of a layer, E = F by a model's layers."""

    def __init__(self, spec: LinformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.rank = spec.rank
        if spec.sharing == "layer":
            self.shorten = nn.Parameter(_projections(2, spec.rank, slot.max_length))
            return
        shared = slot.shared
        if shared is None:
            shared = self.own = Shared()
        shared.get(spec.shared_name, lambda: _projections(1, spec.rank, slot.max_length))
        # in a tuple, so that the parameter is the model's and not this module's as well
        self._shared = (shared,)

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        B, N, D = x.shape
        if self.max_length < N:
            message = f"{N} tokens, but the projection was made for {self.max_length}"
            raise InvalidInput([Problem("", message)])
        w_q, w_k, w_v = self.qkv.weight.chunk(3)
        q = functional.linear(x, w_q)
        source = x if mask is None else x * mask.unsqueeze(-1)
        # (Ex)W = E(xW): shortening first leaves K rows to project instead of N
        projections = self._projections()
        short = torch.matmul(projections[:, :, :N].flatten(0, 1), source)
        short = short.view(B, len(projections), self.rank, D)
        k, v = functional.linear(short[:, 0], w_k), functional.linear(short[:, -1], w_v)
        q, k, v = (t.view(B, -1, self.heads, self.head_width).transpose(1, 2) for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _projections(self) -> Tensor:
        """E and F (2, K, L), or the one that is both (1, K, L)."""
        if self.spec.sharing == "layer":
            return self.shorten
        # looked up again each time: loading or casting a model may put another in its place
        parameter: Tensor = self._shared[0].named[self.spec.shared_name]
        return parameter


def _projections(number: int, rank: int, length: int) -> Tensor:
    return nn.init.normal_(torch.empty(number, rank, length), std=1 / math.sqrt(length))
