"""Longformer: a sliding window, in encoders with leading global positions.

Shapes: B batch, N sequence, H heads, P = B·H, D width, E head width, T keys seen before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot, split_heads
from nas.models.attention.full import Cache
from nas.models.positions import Rotation
from search_spaces.attention.longformer import Block, LongformerAttention, blocks

HIDDEN = -1e30  # finite, so that a query that sees nothing has no 0 / 0


class Band(NamedTuple):
    """Keys that a query sees: neighbours on its left and right, and the leading ones of all."""

    left: int
    right: int
    leading: int


class Longformer(Attention[LongformerAttention], spec=LongformerAttention):
    """A window of ``window`` keys on each side; the ``globals`` first positions see all by
    projections of their own and are seen by all (section 3.1)."""

    def __init__(self, spec: LongformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.right = 0 if slot.causal else spec.window
        self.leading = 0 if slot.causal else spec.globals
        self.global_qkv: nn.Linear | None = None
        if self.leading:
            self.global_qkv = nn.Linear(slot.d_model, 3 * slot.d_model, bias=False)
            nn.init.normal_(self.global_qkv.weight, std=1 / math.sqrt(slot.d_model))

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        band = Band(self.spec.window, self.right, self.leading)
        qk, v = self._project_densely(x, rotation)
        mixed = mix_locally(qk[0], qk[1], v, self.heads, band, mask)
        if self.global_qkv is None:
            return mixed
        first = self._mix_leading(self.global_qkv.weight, x, mask)
        return torch.cat((first, mixed[:, first.shape[1] :]), dim=1)

    def _mix_leading(self, weight: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """What the global positions see, (B, globals, D). Rotary angles do not apply to them.

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

    def _first_state(self, batch_size: int) -> Cache:
        empty = self._zeros(batch_size * self.heads, 0, self.head_width)
        return Cache(empty, empty)

    def _continue(self, x: Tensor, state: Cache, rotation: Rotation | None) -> tuple[Tensor, Cache]:
        qk, v = self._project_densely(x, rotation)
        q, k = qk.unbind()
        k, v = torch.cat((state.keys, k), dim=1), torch.cat((state.values, v), dim=1)
        w = self.spec.window
        mixed = mix_locally(q, k, v, self.heads, Band(w, 0, 0), None)
        return mixed, Cache(k[:, -w:].contiguous(), v[:, -w:].contiguous())


def mix_locally(
    q: Tensor, k: Tensor, v: Tensor, heads: int, band: Band, valid: Tensor | None
) -> Tensor:
    """Softmax attention of each query (P, N, E) to the keys in its band, (B, N, D).

    k, v: (P, T + N, E), of which the last N stand at the queries' positions; valid (B, T + N),
    True = key may be seen. A query whose keys are all padding gets a mean of some.
    """
    return _apply_locally(q, k, v, heads, band, valid)


def mix_locally_plainly(
    q: Tensor, k: Tensor, v: Tensor, band: Band, valid: Tensor | None
) -> Tensor:
    """``mix_locally`` as it is defined, (P, N, E): N² in time and memory."""
    N, T = q.shape[1], k.shape[1] - q.shape[1]
    i, j = torch.arange(T, T + N).unsqueeze(1), torch.arange(T + N)
    seen = ((j >= i - band.left) & (j <= i + band.right)) | (j < band.leading)
    if valid is not None:
        seen = seen & valid.repeat_interleave(q.shape[0] // valid.shape[0], dim=0).unsqueeze(1)
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
    return scores.masked_fill(~seen, HIDDEN).softmax(-1) @ v


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
        heads: int,
        band: Band,
        valid: Tensor | None,
    ) -> Tensor:
        P, N, E = q.shape
        out = q.new_empty(P // heads, N, heads * E)
        rows = split_heads(out, heads)
        tiles = _Tiles(q, k, band, valid)
        for block in tiles.blocks:
            tiles.mix(block, v, rows[:, :, block.start : block.stop])
        ctx.save_for_backward(q, k, v, out, valid)
        ctx.heads, ctx.band = heads, band
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, valid = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[2])
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        grad, out = (split_heads(t.contiguous(), ctx.heads) for t in (grad, out))
        correction = torch.linalg.vecdot(grad, out).reshape(*q.shape[:2], 1)
        grad = grad.reshape(q.shape)
        tiles = _Tiles(q, k, ctx.band, valid)
        for block in tiles.blocks:
            rows = slice(block.start, block.stop)
            weights, g = tiles.weights(block), grad[:, rows]
            tiles.add(dv, block, weights, g, 1)
            d = torch.baddbmm(
                correction[:, rows], g, tiles.seen(v, block).transpose(1, 2), beta=-1
            ).mul_(weights)
            torch.mul(torch.bmm(d, tiles.seen(k, block)), scale, out=dq[:, rows])
            tiles.add(dk, block, d, q[:, rows], scale)
        return dq, dk, dv, None, None, None


_apply_locally: Callable[..., Tensor] = _MixLocally.apply


class _Tiles:
    """The blocks of a band over q (P, N, E) and k (P, T + N, E)."""

    def __init__(self, q: Tensor, k: Tensor, band: Band, valid: Tensor | None) -> None:
        N, total = q.shape[1], k.shape[1]
        self.q, self.k, self.valid = q, k, valid
        self.leading = band.leading
        self.left, right = min(band.left, total), min(band.right, N)
        self.before = total - N
        self.blocks = list(blocks(N, self.left, right, band.leading, self.before))
        C = self.blocks[0].queries
        i = torch.arange(C, device=q.device).unsqueeze(1)
        j = torch.arange(C + self.left + right, device=q.device) - self.left
        self.bias = torch.where((j >= i - self.left) & (j <= i + right), 0.0, HIDDEN).to(q.dtype)

    def mix(self, block: Block, v: Tensor, out: Tensor) -> None:
        """Write the means of values to ``out`` (B, H, queries, E)."""
        out.copy_(torch.bmm(self.weights(block), self.seen(v, block)).view(out.shape))

    def weights(self, block: Block) -> Tensor:
        """Softmax weights (P, queries, keys)."""
        q = self.q[:, block.start : block.stop]
        keys = self.seen(self.k, block).transpose(1, 2)
        bias = self._bias(block)
        scores = torch.baddbmm(bias.to(q.dtype), q, keys, alpha=1 / math.sqrt(q.shape[2]))
        return scores.softmax(dim=-1)

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

    def _bias(self, block: Block) -> Tensor:
        """What is added to scores, broadcastable to (P, queries, keys)."""
        offset = block.first - (self.before + block.start - self.left)
        keys = block.last - block.first
        bias = self.bias[: block.queries, offset : offset + keys]
        if self.leading > block.first:
            bias = functional.pad(bias, (0, keys - bias.shape[1]), value=HIDDEN)
            bias[:, : self.leading - block.first] = 0
        if block.leading:
            bias = functional.pad(bias, (block.leading, 0))
        if self.valid is None:
            return bias
        hidden = torch.where(self.seen(self.valid, block), 0.0, HIDDEN)
        rows = torch.add(bias, hidden.unsqueeze(1)).clamp_min(HIDDEN)
        return rows.repeat_interleave(self.q.shape[0] // self.valid.shape[0], dim=0)
