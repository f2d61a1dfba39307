"""What mechanisms with a sliding window share.

Shapes: B batch, N sequence, G key heads, D width, E head width, T positions before.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from nas.models.attention.base import Attention, AttentionSlot
from nas.models.attention.bias import position_bias
from nas.models.attention.window import Band, Rows, mix_locally
from nas.models.positions import Rotation
from search_spaces.attention.base import AttentionSpec

S = TypeVar("S", bound=AttentionSpec)


class LocalAttention(Attention[S]):
    """Keys near the query, on its left alone when causal; ``leading`` ones are seen by all."""

    def __init__(self, spec: S, slot: AttentionSlot, window: int, leading: int = 0) -> None:
        super().__init__(spec, slot)
        self.band = Band(window, 0 if slot.causal else window, leading)
        self.bias = position_bias(slot.position, slot.heads, slot.causal)

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        q, k, v = self._project_rows(x, rotation)
        return mix_locally(q, k, v, self.heads, self.band, mask, self.bias)

    def _first_state(self, batch_size: int) -> Rows:
        empty = self._zeros(batch_size * self.key_heads, 0, self.head_width)
        return Rows(empty, empty)

    def _continue(self, x: Tensor, state: Rows, rotation: Rotation | None) -> tuple[Tensor, Rows]:
        q, k, v = self._project_rows(x, rotation)
        state = state.followed_by(k, v)
        mixed = mix_locally(q, *state, self.heads, self.band, None, self.bias)
        return mixed, state.last(self.band.left)
