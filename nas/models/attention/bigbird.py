"""BigBird: neighbouring blocks, leading blocks that all see, and random blocks.

Shapes: B batch, N sequence, H heads, P = B·H rows, D width, E head width, n blocks of the longest
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nas.models.attention.base import Attention, AttentionSlot
from nas.models.attention.blocks import Keys, hide, mix_seen_plainly, mix_tiles, no_rows
from nas.models.attention.window import Rows
from nas.models.positions import Rotation
from search_spaces.attention.bigbird import BigBirdAttention
from search_spaces.errors import InvalidInput, Problem

NO_LINK = -1


class BigBird(Attention[BigBirdAttention], spec=BigBirdAttention):
    """Block-sparse attention with global blocks inside the sequence (appendix D).

    The random blocks are drawn once for the longest sequence and kept with the weights: padding,
    other sequences and earlier calls move none. A layer's heads share them, so that the keys of a
    block lie together for all heads; layers draw their own.
    """

    links: Tensor

    def __init__(self, spec: BigBirdAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self._links = spec.links(slot.max_length, int(torch.randint(2**31 - 1, ())))
        rows = [row + [NO_LINK] * (spec.random - len(row)) for row in self._links]
        self.register_buffer("links", torch.tensor(rows, dtype=torch.int64))

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        # as numbers, read once: asking a device for them would make every pass wait for it
        self._links = [[j for j in row if j != NO_LINK] for row in self.links.tolist()]

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        N = x.shape[1]
        if self.max_length < N:
            message = f"{N} tokens, but random blocks were drawn for {self.max_length}"
            raise InvalidInput([Problem("", message)])
        qk, v = self._project_densely(x, rotation)
        q, k = qk.unbind()
        return mix_linked(q, Rows(k, v), self.heads, self.spec, self._links, mask)


def mix_linked(
    q: Tensor,
    rows: Rows,
    heads: int,
    spec: BigBirdAttention,
    links: Sequence[Sequence[int]],
    valid: Tensor | None,
) -> Tensor:
    """Attention of queries (P, N, E) to the same positions, (B, N, D); valid (B, N)."""
    keys = Keys(rows, no_rows(q), hide(valid, q))
    return mix_tiles(q, keys, heads, list(spec.tiles(q.shape[1], links)))


def mix_linked_plainly(
    q: Tensor,
    rows: Rows,
    heads: int,
    spec: BigBirdAttention,
    links: Sequence[Sequence[int]],
    valid: Tensor | None,
) -> Tensor:
    """``mix_linked`` as it is defined: N² in time and memory."""
    N = q.shape[1]
    block = torch.arange(N, device=q.device) // spec.block
    i, j = block.unsqueeze(1), block
    seen = ((i - j).abs() <= 1) | (i < spec.globals) | (j < spec.globals)
    for at, row in enumerate(links):
        for linked in row:
            seen |= (i == at) & (j == linked)
    if valid is not None:
        seen = seen & valid[:, None, None]
    return mix_seen_plainly(q, *rows, heads, seen)
