"""Transformer-XL: relative positions, and a memory of the hidden states of earlier segments.

Shapes: B batch, N sequence, M memory, T keys before the first query, H heads, P = H·B (heads
first), D width, E head width, C queries of a block, K keys that it sees, W distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot
from nas.models.attention.window import HIDDEN, Rows
from nas.models.positions import Rotation, waves_by_distance
from search_spaces.attention.transformer_xl import TransformerXLAttention
from search_spaces.attention.window import BLOCK, Block, blocks

OFFSET_STD = 0.02


class TransformerXL(Attention[TransformerXLAttention], spec=TransformerXLAttention):
    """Softmax(((q + u)·k + (q + v)·W_kR R_(i-j)) / √E) over memory and segment (section 3.3)."""

    def __init__(self, spec: TransformerXLAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        D = slot.d_model
        self.distance = nn.Linear(D, D, bias=False)
        nn.init.normal_(self.distance.weight, std=1 / math.sqrt(D))
        self.offsets = nn.Parameter(torch.empty(2, self.heads, self.head_width))  # u and v
        nn.init.normal_(self.offsets, std=OFFSET_STD)

    @property
    def memory_size(self) -> int:
        """Most positions of earlier segments that it keeps; an encoder keeps none."""
        return self.spec.memory if self.causal else 0

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        return self._attend(x, self._keys(x), mask)

    def _mix_after(
        self, memory: Tensor, x: Tensor, mask: Tensor | None, rotation: Rotation | None
    ) -> Tensor:
        if not self.causal:
            return super()._mix_after(memory, x, mask, rotation)
        if mask is not None:
            mask = functional.pad(mask, (memory.shape[1], 0), value=True)
        seen = self._keys(torch.cat((memory.detach(), x), dim=1))
        return self._attend(x, seen, mask)

    def _first_state(self, batch_size: int) -> Rows:
        empty = self._zeros(batch_size * self.heads, 0, self.head_width)
        return Rows(empty, empty)

    def _continue(self, x: Tensor, state: Rows, rotation: Rotation | None) -> tuple[Tensor, Rows]:
        state = state.followed_by(*self._keys(x))
        return self._attend(x, state, None), state

    def _keys(self, x: Tensor) -> Rows:
        """Keys and values of (B, N, D)."""
        B, N, D = x.shape
        kv = functional.linear(x, self.qkv.weight[D:]).view(B, N, 2, self.heads, self.head_width)
        return Rows(*kv.permute(2, 3, 0, 1, 4).contiguous().flatten(1, 2).unbind())

    def _attend(self, x: Tensor, seen: Rows, valid: Tensor | None) -> Tensor:
        """What the last N positions of ``seen`` get as queries, (B, N, D)."""
        N, D = x.shape[1:]
        total = seen.keys.shape[1]
        reach = min(BLOCK, N) if self.causal else N
        waves = waves_by_distance(total - 1, -reach, D, x)
        r = self.distance(waves).view(-1, self.heads, self.head_width).transpose(0, 1)
        q = functional.linear(x, self.qkv.weight[:D]).view(*x.shape[:2], self.heads, -1)
        u, v = self.offsets
        return mix_by_distance(q, *seen, r, u, v, self.causal, valid)


def mix_by_distance(
    q: Tensor,
    k: Tensor,
    values: Tensor,
    r: Tensor,
    u: Tensor,
    v: Tensor,
    causal: bool,
    valid: Tensor | None,
) -> Tensor:
    """Softmax attention of queries (B, N, H, E) to keys (P, T + N, E), (B, N, D).

    r: (H, W, E), a row for each distance i - j from T + N - 1 down to minus the number of queries
    of a block when causal, else to -N. u, v: (H, E), added to the queries before their products
    with keys and with distances; valid (B, T + N), True = key may be seen.
    """
    return _apply(q, k, values, r, u, v, causal, valid)


def mix_by_distance_plainly(
    q: Tensor,
    k: Tensor,
    values: Tensor,
    r: Tensor,
    u: Tensor,
    v: Tensor,
    causal: bool,
    valid: Tensor | None,
) -> Tensor:
    """``mix_by_distance`` as it is defined, each distance looked up: N² in time and memory."""
    B, N, H, E = q.shape
    total = k.shape[1]
    q = q.permute(2, 0, 1, 3)  # (H, B, N, E)
    k, values = (t.view(H, B, total, E) for t in (k, values))
    i, j = torch.arange(total - N, total).unsqueeze(1), torch.arange(total)
    content = (q + u[:, None, None]) @ k.transpose(2, 3)
    # no row is given for keys that come so much later that no block sees them
    rows = r[:, (total - 1 - (i - j)).clamp_max(r.shape[1] - 1)]
    place = torch.einsum("hbie,hije->hbij", q + v[:, None, None], rows)
    hidden = (j > i) & causal
    if valid is not None:
        hidden = hidden | ~valid.unsqueeze(1)
    scores = ((content + place) / math.sqrt(E)).masked_fill(hidden, HIDDEN)
    return (scores.softmax(dim=-1) @ values).permute(1, 2, 0, 3).flatten(2)


class _MixByDistance(Function):
    """Block after block of queries; the backward pass computes their weights again."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        values: Tensor,
        r: Tensor,
        u: Tensor,
        v: Tensor,
        causal: bool,
        valid: Tensor | None,
    ) -> Tensor:
        out = torch.empty_like(q)
        rows = out.permute(2, 0, 1, 3)
        tiles = _Tiles(q, k, r, u, v, causal, valid)
        for block in tiles.blocks:
            tiles.mix(block, values, rows[:, :, block.start : block.stop])
        ctx.save_for_backward(q, k, values, r, u, v, out, valid)
        ctx.causal = causal
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, values, r, u, v, out, valid = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[3])
        tiles = _Tiles(q, k, r, u, v, ctx.causal, valid)
        dq, dk, d_values = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(values)
        dr, du, dv = torch.zeros_like(r), torch.zeros_like(u), torch.zeros_like(v)
        grad = grad.view(q.shape)
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        correction = torch.linalg.vecdot(grad, out).unsqueeze(3).permute(2, 0, 1, 3)
        grad, d_rows = grad.permute(2, 0, 1, 3), dq.permute(2, 0, 1, 3)
        for block in tiles.blocks:
            a, b = tiles.queries(block)
            g, c = (t[:, :, block.start : block.stop].flatten(0, 1) for t in (grad, correction))
            weights = tiles.weights(block, a, b)
            near = slice(0, block.last)
            d_values[:, near].baddbmm_(weights.transpose(1, 2), g)
            d = torch.baddbmm(c, g, values[:, near].transpose(1, 2), beta=-scale, alpha=scale)
            d.mul_(weights)
            dk[:, near].baddbmm_(d.transpose(1, 2), a)
            da = torch.bmm(d, k[:, near])
            rows, places = tiles.places(block), b.new_zeros(*d.shape[:2], d.shape[1] + d.shape[2])
            shift(places, d.shape[2]).copy_(d)
            places = places.view(*b.shape[:2], -1)
            db = torch.bmm(places, r[:, rows])
            dr[:, rows].baddbmm_(places.transpose(1, 2), b)
            to = d_rows[:, :, block.start : block.stop]
            torch.add(da.view(to.shape), db.view(to.shape), out=to)
            du += da.view(to.shape).sum(dim=(1, 2))
            dv += db.view(to.shape).sum(dim=(1, 2))
        return dq, dk, d_values, dr, du, dv, None, None


_apply: Callable[..., Tensor] = _MixByDistance.apply


def shift(places: Tensor, keys: int) -> Tensor:
    """Scores by distance as scores by key: a view (P, C, K) of (P, C, C + K).

    Row c of C begins C - 1 - c places further to the right than the last row; cut from a flat row
    one number shorter than the true ones, every row begins one place earlier than the one before.
    """
    P, C, W = places.shape
    flat = places.view(P, C * W)[:, C - 1 : C - 1 + C * (W - 1)]
    return flat.view(P, C, W - 1)[:, :, :keys]


class _Tiles:
    """The blocks of queries (B, N, H, E) with all keys (P, T + N, E) that they see."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        r: Tensor,
        u: Tensor,
        v: Tensor,
        causal: bool,
        valid: Tensor | None,
    ) -> None:
        N, total = q.shape[1], k.shape[1]
        self.q, self.k, self.r = q.permute(2, 0, 1, 3), k, r
        self.u, self.v = (t[:, None, None].to(q.dtype) for t in (u, v))
        self.hidden = None if valid is None else ~valid.unsqueeze(1)
        self.blocks = list(blocks(N, total, 0 if causal else N, before=total - N))
        self.later: Tensor | None = None
        if causal:
            C = self.blocks[0].queries
            self.later = torch.ones(C, C, dtype=torch.bool, device=q.device).triu(1)

    def mix(self, block: Block, values: Tensor, out: Tensor) -> None:
        """Write the means of values to ``out`` (H, B, C, E)."""
        weights = self.weights(block, *self.queries(block))
        out.copy_(torch.bmm(weights, values[:, : block.last]).view(out.shape))

    def queries(self, block: Block) -> tuple[Tensor, Tensor]:
        """q + u (P, C, E) for keys, q + v (H, B·C, E) for distances."""
        q = self.q[:, :, block.start : block.stop]
        a = torch.add(q, self.u, out=q.new_empty(q.shape))
        b = torch.add(q, self.v, out=q.new_empty(q.shape))
        return a.flatten(0, 1), b.flatten(1, 2)

    def places(self, block: Block) -> slice:
        """The C + K distances, from that of the last query to the first key on."""
        first = self.q.shape[2] - block.stop
        return slice(first, first + block.queries + block.last)

    def weights(self, block: Block, a: Tensor, b: Tensor) -> Tensor:
        """Softmax weights (P, C, K)."""
        scale, C, K = 1 / math.sqrt(a.shape[2]), block.queries, block.last
        places = torch.bmm(b, self.r[:, self.places(block)].transpose(1, 2)).view(-1, C, C + K)
        keys = self.k[:, :K].transpose(1, 2)
        scores = torch.baddbmm(shift(places, K), a, keys, beta=scale, alpha=scale)
        del places
        if self.later is not None:
            scores[:, :, K - C :].masked_fill_(self.later[:C, :C], HIDDEN)
        if self.hidden is not None:
            of_heads = scores.view(*self.q.shape[:2], C, K)
            of_heads.masked_fill_(self.hidden[:, :, :K], HIDDEN)
        return scores.softmax(dim=-1)
