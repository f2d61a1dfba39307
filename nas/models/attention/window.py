"""Softmax attention of queries to the keys around them, in blocks.

Shapes: B batch, N sequence, H heads, G key heads, P = B·H, R = B·G, D width, E head width,
T keys seen before, S = H / G heads of queries to one of keys, C queries of a block, K keys that it
sees, W distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import split_heads
from nas.models.attention.bias import DistanceBias
from search_spaces.attention.window import BLOCK, Block, blocks

NOTHING = 1e-30  # a weight that no sum with the largest one, at least 1 / K, could tell from 0
HIDDEN = -1e30  # finite, so that a query that sees nothing has no 0 / 0


class Band(NamedTuple):
    """Keys that a query sees: neighbours on its left and right, and the leading ones of all."""

    left: int
    right: int
    leading: int = 0


class Rows(NamedTuple):
    """Keys and values of the positions before, each (R, T, E)."""

    keys: Tensor
    values: Tensor

    def followed_by(self, keys: Tensor, values: Tensor) -> Rows:
        """With those of N more positions."""
        return Rows(torch.cat((self.keys, keys), dim=1), torch.cat((self.values, values), dim=1))

    def last(self, positions: int) -> Rows:
        """Those of the last positions, without the memory of the others."""
        return Rows(*(rows[:, -positions:].contiguous() for rows in self))


def mix_locally(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    band: Band,
    valid: Tensor | None,
    bias: DistanceBias | None = None,
) -> Tensor:
    """Softmax attention of each query (P, N, E) to the keys in its band, (B, N, D).

    k, v: (R, T + N, E), of which the last N stand at the queries' positions, and each row serves
    S consecutive ones of q; valid (B, T + N), True = key may be seen. A query whose keys are all
    padding gets a mean of some. The bias does not apply to leading keys, which are no neighbours.
    """
    band = Band(min(band.left, k.shape[1]), min(band.right, q.shape[1]), band.leading)
    row = None
    if bias is not None:
        reach = min(BLOCK, q.shape[1]) - 1
        row = bias(-band.left - reach, band.right + reach).to(q.dtype)
    return _apply_locally(q, k, v, row, heads, band, valid)


def mix_locally_plainly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    band: Band,
    valid: Tensor | None,
    bias: DistanceBias | None = None,
) -> Tensor:
    """``mix_locally`` as it is defined: N² in time and memory."""
    B, N, T = q.shape[0] // heads, q.shape[1], k.shape[1] - q.shape[1]
    q, k, v = (t.view(B, -1, *t.shape[1:]) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads // k.shape[1], dim=1) for t in (k, v))
    i, j = torch.arange(T, T + N).unsqueeze(1), torch.arange(T + N)
    seen = ((j >= i - band.left) & (j <= i + band.right)) | (j < band.leading)
    if valid is not None:
        seen = seen & valid[:, None, None]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    if bias is not None:
        added = bias(1 - T - N, N - 1)[:, j - i + T + N - 1]
        scores = scores + torch.where(j < band.leading, 0, added)
    return (scores.masked_fill(~seen, HIDDEN).softmax(-1) @ v).transpose(1, 2).flatten(2)


class _MixLocally(Function):
    """Block after block of queries, each with the slice of keys that it sees.

    The backward pass computes the weights again; nothing of size N·window is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        row: Tensor | None,
        heads: int,
        band: Band,
        valid: Tensor | None,
    ) -> Tensor:
        P, N, E = q.shape
        out = q.new_empty(P // heads, N, heads * E)
        rows = split_heads(out, heads)
        tiles = _Tiles(q, k, row, heads, band, valid)
        for block in tiles.blocks:
            tiles.mix(block, v, rows[:, :, block.start : block.stop])
        ctx.save_for_backward(q, k, v, row, out, valid)
        ctx.heads, ctx.band = heads, band
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, row, out, valid = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[2])
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        tiles = _Tiles(q, k, row, ctx.heads, ctx.band, valid)
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        grad, out = (split_heads(t.contiguous(), ctx.heads) for t in (grad, out))
        correction = tiles.grouped(torch.linalg.vecdot(grad, out).unsqueeze(-1))
        grad = tiles.grouped(grad)
        d_rows = tiles.grouped(dq)
        d_bias = torch.zeros_like(tiles.bias) if ctx.needs_input_grad[3] else None
        for block in tiles.blocks:
            weights = tiles.weights(block)
            g = tiles.of(grad, block)
            tiles.add(dv, block, weights, g, 1)
            d = torch.baddbmm(
                tiles.of(correction, block), g, tiles.seen(v, block).transpose(1, 2), beta=-1
            ).mul_(weights)
            to_rows = d_rows[:, :, block.start : block.stop]
            torch.mul(torch.bmm(d, tiles.seen(k, block)).view(to_rows.shape), scale, out=to_rows)
            tiles.add(dk, block, d, tiles.of(tiles.q, block), scale)
            if d_bias is not None:
                tiles.add_to_bias(d_bias, block, d)
        d_row = None if d_bias is None else _along_distances(d_bias)
        return dq, dk, dv, d_row, None, None, None


_apply_locally: Callable[..., Tensor] = _MixLocally.apply


def _by_position(row: Tensor, queries: int) -> Tensor:
    """Numbers by distance (H, W) as those of C queries and W - C + 1 keys, (H, C, K).

    The first of them stands where the last query and the first key meet.
    """
    return row.unfold(1, row.shape[1] - queries + 1, 1).flip(1)


def _along_distances(tile: Tensor) -> Tensor:
    """The sums over pairs of the same distance, (H, C, K) → (H, C + K - 1)."""
    H, C, K = tile.shape
    # with C zeros after it each row, one number too long, begins one place further to the right
    skewed = functional.pad(tile.flip(1), (0, C)).flatten(1)[:, : C * (C + K - 1)]
    return skewed.view(H, C, -1).sum(dim=1)


class _Tiles:
    """The blocks of a band over q (P, N, E) and k (R, T + N, E); S·C rows to a block of queries."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        row: Tensor | None,
        heads: int,
        band: Band,
        valid: Tensor | None,
    ) -> None:
        N, total = q.shape[1], k.shape[1]
        self.keys, self.valid, self.heads = k, valid, heads
        self.sharing = q.shape[0] // k.shape[0]
        self.q = self.grouped(q)
        self.left, right, self.leading = band
        self.before = total - N
        self.blocks = list(blocks(N, self.left, right, self.leading, self.before))
        C = self.blocks[0].queries
        i = torch.arange(C, device=q.device).unsqueeze(1)
        j = torch.arange(C + self.left + right, device=q.device) - self.left
        near = (j >= i - self.left) & (j <= i + right)
        self.bias = torch.where(near, 0.0, HIDDEN).to(q.dtype)  # (C, K), by head (H, C, K)
        self.biased = row is not None
        if row is not None:
            self.bias = _by_position(row, C).masked_fill_(~near, HIDDEN)

    def grouped(self, rows: Tensor) -> Tensor:
        """Rows for each query, (B, H, N, ·) or (P, N, ·), as (R, S, N, ·)."""
        return rows.reshape(self.keys.shape[0], self.sharing, *rows.shape[-2:])

    @staticmethod
    def of(rows: Tensor, block: Block) -> Tensor:
        """Those of the block's queries, (R, S, N, ·) → (R, S·C, ·)."""
        return rows[:, :, block.start : block.stop].flatten(1, 2)

    def mix(self, block: Block, v: Tensor, out: Tensor) -> None:
        """Write the means of values to ``out`` (B, H, C, E)."""
        out.copy_(torch.bmm(self.weights(block), self.seen(v, block)).view(out.shape))

    def weights(self, block: Block) -> Tensor:
        """Softmax weights (R, S·C, K)."""
        q = self.of(self.q, block)
        keys = self.seen(self.keys, block).transpose(1, 2)
        bias = self._bias(block).to(q.dtype)
        scores = torch.baddbmm(bias, q, keys, alpha=1 / math.sqrt(q.shape[2]))
        weights = scores.softmax(dim=-1)
        # steep biases leave weights that are not even normal numbers, which processors are slow at
        return functional.threshold(weights, NOTHING, 0, inplace=True) if self.biased else weights

    def seen(self, x: Tensor, block: Block) -> Tensor:
        """The rows of keys or values that the block sees, leading ones first."""
        near = x[:, block.first : block.last]
        return torch.cat((x[:, : block.leading], near), dim=1) if block.leading else near

    @staticmethod
    def add(total: Tensor, block: Block, weights: Tensor, rows: Tensor, alpha: float) -> None:
        """Add α·weightsᵀ·rows to the rows of ``total`` that the block sees."""
        n = block.leading
        near = weights[:, :, n:].transpose(1, 2)
        total[:, block.first : block.last].add_(torch.bmm(near, rows), alpha=alpha)
        if n:
            total[:, :n].add_(torch.bmm(weights[:, :, :n].transpose(1, 2), rows), alpha=alpha)

    def add_to_bias(self, total: Tensor, block: Block, d: Tensor) -> None:
        """Add what scores (R, S·C, K) of neighbours give to ``total``, shaped as ``bias``."""
        d = d.view(-1, self.heads, block.queries, block.keys)
        unbiased = max(block.leading, self.leading - block.first)
        near = self._near(total, block)[:, :, unbiased - block.leading :]
        near.add_(d[..., unbiased : unbiased + near.shape[2]].sum(dim=0))

    def _near(self, bias: Tensor, block: Block) -> Tensor:
        """The part of the band that the block's queries and the keys from its first on have."""
        offset = block.first - (self.before + block.start - self.left)
        keys = block.last - block.first
        return bias[..., : block.queries, offset : offset + keys]

    def _bias(self, block: Block) -> Tensor:
        """What is added to scores, broadcastable to (R, S·C, K)."""
        bias = self._near(self.bias, block)
        if self.leading > block.first:
            keys = block.last - block.first
            bias = functional.pad(bias, (0, keys - bias.shape[-1]), value=HIDDEN)
            bias[..., : self.leading - block.first] = 0
        if block.leading:
            bias = functional.pad(bias, (block.leading, 0))
        if self.valid is None and bias.dim() == 2 and self.sharing == 1:
            return bias
        if self.valid is None and bias.dim() == 2:
            return bias.repeat(self.sharing, 1)
        rows = bias.expand(self.heads, *bias.shape[-2:]).unsqueeze(0)  # (1, H, C, K)
        batch = self.keys.shape[0] * self.sharing // self.heads
        if self.valid is not None:
            hidden = torch.where(self.seen(self.valid, block), 0.0, HIDDEN)[:, None, None]
            rows = torch.add(rows, hidden).clamp_min_(HIDDEN)
        elif batch > 1:
            rows = rows.expand(batch, -1, -1, -1)
        return rows.reshape(self.keys.shape[0], -1, block.keys)
