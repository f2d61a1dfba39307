"""Full attention through PyTorch's fused kernels.

Shapes: B batch, N sequence, H heads, D width, E head width, T keys seen before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nas.models.attention.base import Attention
from nas.models.positions import Rotation
from search_spaces.attention.full import FullAttention


class Cache(NamedTuple):
    """Keys and values seen so far, each (B, H, T, E)."""

    keys: Tensor
    values: Tensor


class Full(Attention[FullAttention], spec=FullAttention):
    """Softmax(QKᵀ/√E)V."""

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        q, k, v = self._project(x, rotation)
        if mask is None:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            return mixed.transpose(1, 2).flatten(2)
        seen = mask[:, None, None, :]
        if self.causal:
            N = x.shape[1]
            # the own position is always seen: a query with no key at all would be 0 / 0
            seen = seen & torch.ones(N, N, dtype=torch.bool, device=x.device).tril()
            seen = seen | torch.eye(N, dtype=torch.bool, device=x.device)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return mixed.transpose(1, 2).flatten(2)

    def _first_state(self, batch_size: int) -> Cache:
        empty = self._zeros(batch_size, self.heads, 0, self.head_width)
        return Cache(empty, empty)

    def _continue(self, x: Tensor, state: Cache, rotation: Rotation | None) -> tuple[Tensor, Cache]:
        q, k, v = self._project(x, rotation)
        T, N = state.keys.shape[2], x.shape[1]
        state = Cache(torch.cat((state.keys, k), dim=2), torch.cat((state.values, v), dim=2))
        seen = None
        if N > 1 and T > 0:
            seen = torch.ones(N, T + N, dtype=torch.bool, device=x.device).tril(T)
        mixed = functional.scaled_dot_product_attention(q, *state, attn_mask=seen, is_causal=T == 0)
        return mixed.transpose(1, 2).flatten(2), state
