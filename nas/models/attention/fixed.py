"""Fixed sparse attention: the own block, and the last columns of the other blocks.

Shapes: B batch, N sequence, H heads, P = B·H rows, D width, E head width, S summary positions,
T positions of the tile at hand that came before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nas.models.attention.base import Attention
from nas.models.attention.blocks import Keys, hide, mix_seen_plainly, mix_tiles
from nas.models.attention.window import HIDDEN, Rows
from nas.models.positions import Rotation
from search_spaces.attention.fixed import FixedAttention


class Past(NamedTuple):
    """Summaries (P, S, E) of the tiles that are complete, and the rows (P, T, E) of the next."""

    summaries: Rows
    recent: Rows


class Fixed(Attention[FixedAttention], spec=FixedAttention):
    """One softmax over the union of both sets of section 4.2, for every head."""

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        qk, v = self._project_densely(x, rotation)
        q, k = qk.unbind()
        return mix_fixed(q, Rows(k, v), self.heads, self.spec, self.causal, mask)

    def _first_state(self, batch_size: int) -> Past:
        empty = self._zeros(batch_size * self.heads, 0, self.head_width)
        return Past(Rows(empty, empty), Rows(empty, empty))

    def _continue(self, x: Tensor, state: Past, rotation: Rotation | None) -> tuple[Tensor, Past]:
        qk, v = self._project_densely(x, rotation)
        q, k = qk.unbind()
        rows = state.recent.followed_by(k, v)
        total, size = rows.keys.shape[1], self.spec.tile
        summaries = state.summaries.followed_by(
            *(summarised(t[:, : total // size * size], self.spec) for t in rows)
        )
        tiles = self.spec.tiles(total, True, total - x.shape[1], state.summaries.keys.shape[1])
        bias = _bias(self.spec, total, True, q)
        mixed = mix_tiles(q, Keys(rows, summaries), self.heads, list(tiles), bias)
        # copies, so that the memory of what is over is given back
        return mixed, Past(summaries, rows.last(total % size) if total % size else _none(rows))


def _none(rows: Rows) -> Rows:
    return Rows(*(t.new_empty(t.shape[0], 0, t.shape[2]) for t in rows))


def summarised(x: Tensor, spec: FixedAttention) -> Tensor:
    """The summary positions of (B, N, …), those of the last block as far as they exist."""
    N, b, skip = x.shape[1], spec.block, spec.block - spec.summary
    blocks = x[:, : N // b * b].reshape(x.shape[0], N // b, b, *x.shape[2:])
    summaries = blocks[:, :, skip:].flatten(1, 2)
    rest = x[:, N // b * b + skip :]
    return torch.cat((summaries, rest), dim=1) if rest.shape[1] else summaries


def mix_fixed(
    q: Tensor, rows: Rows, heads: int, spec: FixedAttention, causal: bool, valid: Tensor | None
) -> Tensor:
    """Attention of queries (P, N, E) to the same positions, (B, N, D); valid (B, N)."""
    summaries = Rows(*(summarised(t, spec) for t in rows))
    shown = None if valid is None else summarised(valid, spec)
    keys = Keys(rows, summaries, hide(valid, q), hide(shown, q))
    N = q.shape[1]
    return mix_tiles(q, keys, heads, list(spec.tiles(N, causal)), _bias(spec, N, causal, q))


def mix_fixed_plainly(
    q: Tensor, rows: Rows, heads: int, spec: FixedAttention, causal: bool, valid: Tensor | None
) -> Tensor:
    """``mix_fixed`` as it is defined: N² in time and memory."""
    N = q.shape[1]
    seen = _seen(N, spec, causal, q.device)
    if valid is not None:
        seen = seen & valid[:, None, None]
    return mix_seen_plainly(q, *rows, heads, seen)


def _seen(size: int, spec: FixedAttention, causal: bool, device: torch.device) -> Tensor:
    """Which keys the queries of so many positions see, from the start of a block on."""
    i = torch.arange(size, device=device)
    block = i // spec.block
    summary = i % spec.block >= spec.block - spec.summary
    seen = (block.unsqueeze(1) == block) | summary
    return seen.tril() if causal else seen


def _bias(spec: FixedAttention, length: int, causal: bool, like: Tensor) -> Tensor:
    """0 for keys of the own tile that a query sees, else very low."""
    seen = _seen(min(spec.tile, length), spec, causal, like.device)
    return torch.where(seen, 0.0, HIDDEN).to(like.dtype)
