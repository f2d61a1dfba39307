"""BlockBERT: each block of queries sees one block of keys, another for other heads.

Shapes: B batch, N sequence, H heads, D width, E head width, m blocks of the sequence at hand,
C tokens of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import Attention
from nas.models.attention.blocks import mix_seen_plainly
from nas.models.positions import Rotation, rotate
from search_spaces.attention.blockbert import BlockBertAttention
from search_spaces.errors import InvalidInput, Problem


class BlockBert(Attention[BlockBertAttention], spec=BlockBertAttention):
    """Shifting permutations (section 3.1): block i of a head sees block (i + shift) mod n.

    Each shift has as many heads as the others, or one less. In a sequence too short to have that
    block, or where it is all padding, a query sees nothing and the head gives 0 for it.
    """

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        B, N, _ = x.shape
        if self.max_length < N:
            message = f"{N} tokens, but blocks were made for {self.max_length}"
            raise InvalidInput([Problem("", message)])
        heads = B, N, self.heads, self.head_width
        # one after the other, so that what was moved does not keep alive what was not
        w_q, w_k, w_v = self.qkv.weight.chunk(3)
        q, k = (functional.linear(x, w).view(heads) for w in (w_q, w_k))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        size = self.spec.size(self.max_length)
        k = moved(k, size, self.spec)
        v = moved(functional.linear(x, w_v).view(heads), size, self.spec)
        return mix_blocks(q, k, v, size, self.spec, mask)


def moved(x: Tensor, size: int, spec: BlockBertAttention) -> Tensor:
    """For each block and head the rows of (B, N, H, ·) that it sees, (B, m, C, H, ·).

    Zeros in place of what does not exist.
    """
    C = min(size, x.shape[1])
    rows = _move(x, list(_moves(x.shape[1], C, x.shape[2], spec)), -(-x.shape[1] // C) * C)
    return rows.view(rows.shape[0], -1, C, *rows.shape[2:])


class Move(NamedTuple):
    """N rows of some heads that go from one place to another."""

    heads: slice
    source: slice
    to: slice


def _moves(N: int, C: int, H: int, spec: BlockBertAttention) -> Iterator[Move]:
    m = -(-N // C)
    for shift, heads in enumerate(spec.shifts(H)):
        # blocks that see one behind them, and those that see one of the first
        for source, to in ((shift, 0), (0, spec.blocks - shift)):
            blocks = m - max(source, to)
            if blocks > 0:
                start, stop = source * C, min(N, (source + blocks) * C)
                place = slice(to * C, to * C + stop - start)
                yield Move(slice(heads.start, heads.stop), slice(start, stop), place)


class _Move(Function):
    """By a single copy; slices and concatenations would take two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, moves: Sequence[Move], rows: int) -> Tensor:
        out = x.new_zeros(x.shape[0], rows, *x.shape[2:])
        for heads, source, to in moves:
            out[:, to, heads] = x[:, source, heads]
        ctx.moves, ctx.rows = moves, x.shape[1]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        back = grad.new_zeros(grad.shape[0], ctx.rows, *grad.shape[2:])
        for heads, source, to in ctx.moves:
            back[:, source, heads] = grad[:, to, heads]
        return back, None, None


_move: Callable[..., Tensor] = _Move.apply


def mix_blocks(
    q: Tensor, k: Tensor, v: Tensor, size: int, spec: BlockBertAttention, valid: Tensor | None
) -> Tensor:
    """Attention of queries (B, N, H, E) to keys that were moved, (B, N, D); valid (B, N)."""
    B, N, H, _ = q.shape
    m, C = k.shape[1:3]
    seen = None
    if valid is not None or m * C > N or m < min(spec.blocks, H):
        if valid is None:
            valid = torch.ones(1, N, dtype=torch.bool, device=q.device)
        shown = moved(valid.unsqueeze(2).expand(-1, -1, H), size, spec)
        seen = shown.expand(B, -1, -1, -1).flatten(0, 1).transpose(1, 2).unsqueeze(2)
    if m * C > N:
        q = functional.pad(q, (0, 0, 0, 0, 0, m * C - N))
    q, k, v = (t.reshape(B * m, C, H, -1).transpose(1, 2) for t in (q, k, v))
    # it gives 0 where nothing is seen
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return mixed.transpose(1, 2).reshape(B, m * C, -1)[:, :N]


def mix_blocks_plainly(
    q: Tensor, k: Tensor, v: Tensor, size: int, spec: BlockBertAttention, valid: Tensor | None
) -> Tensor:
    """Blocks of queries and keys (B, N, H, E) by the definition: N² in time and memory."""
    N, H = q.shape[1:3]
    block = torch.arange(N, device=q.device) // size
    shift = torch.empty(H, dtype=torch.int64, device=q.device)
    for s, heads in enumerate(spec.shifts(H)):
        shift[heads.start : heads.stop] = s
    seen = (block.unsqueeze(1) + shift.view(H, 1, 1)) % spec.blocks == block
    if valid is not None:
        seen = seen & valid[:, None, None]
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    return mix_seen_plainly(q, k, v, H, seen)
