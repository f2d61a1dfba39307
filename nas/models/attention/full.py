"""Full attention through PyTorch's fused kernels.

Shapes: B batch, N sequence, H heads, G key heads, D width, E head width, T keys seen before.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot
from nas.models.attention.bias import position_bias
from nas.models.attention.window import Band, Rows, mix_locally
from nas.models.positions import Rotation
from search_spaces.attention.full import FullAttention


class Full(Attention[FullAttention], spec=FullAttention):
    """Softmax(QKᵀ/√E)V.

    The kernels know no bias that is cheaper than N² numbers a head: with one, the positions are a
    window as wide as the sequence.
    """

    def __init__(self, spec: FullAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.bias = position_bias(slot.position, slot.heads, slot.causal)

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        if self.bias is not None:
            q, k, v = self._project_rows(x, rotation)
            return self._mix_biased(q, Rows(k, v), mask)
        q, k, v = self._project(x, rotation)
        if mask is None:
            return self._attend(q, k, v, None, self.causal)
        seen = mask[:, None, None, :]
        if self.causal:
            N = x.shape[1]
            # the own position is always seen: a query with no key at all would be 0 / 0
            seen = seen & torch.ones(N, N, dtype=torch.bool, device=x.device).tril()
            seen = seen | torch.eye(N, dtype=torch.bool, device=x.device)
        return self._attend(q, k, v, seen, False)

    def _first_state(self, batch_size: int) -> Rows:
        empty = self._zeros(batch_size * self.key_heads, 0, self.head_width)
        return Rows(empty, empty)

    def _continue(self, x: Tensor, state: Rows, rotation: Rotation | None) -> tuple[Tensor, Rows]:
        B, N, _ = x.shape
        T = state.keys.shape[1]
        q, k, v = self._project_rows(x, rotation)
        state = state.followed_by(k, v)
        if self.bias is not None:
            return self._mix_biased(q, state, None), state
        seen = None
        if N > 1 and T > 0:
            seen = torch.ones(N, T + N, dtype=torch.bool, device=x.device).tril(T)
        q, k, v = (rows.view(B, -1, *rows.shape[1:]) for rows in (q, *state))
        return self._attend(q, k, v, seen, T == 0), state

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, causal: bool) -> Tensor:
        """Queries (B, H, N, E) to keys (B, G, T + N, E), as (B, N, D)."""
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=causal, enable_gqa=self.key_heads < self.heads
        )
        return mixed.transpose(1, 2).flatten(2)

    def _mix_biased(self, q: Tensor, seen: Rows, mask: Tensor | None) -> Tensor:
        N, total = q.shape[1], seen.keys.shape[1]
        band = Band(total, 0 if self.causal else N)
        return mix_locally(q, *seen, self.heads, band, mask, self.bias)
