"""Sinkhorn: every block attends to itself and to a block that a learned sorting puts before it.

Shapes: B batch, N sequence, H heads, P = B·H rows, D width, E head width, C tokens of a block,
n blocks of a sequence, m blocks that are handled together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot, split_heads, widen
from nas.models.positions import Rotation
from search_spaces.attention.sinkhorn import SinkhornAttention, together
from search_spaces.errors import InvalidInput, Problem

TOGETHER = 2**14  # entries of matrices that are balanced together
HIDDEN = -1e30  # finite, so that a query that sees nothing has no 0 / 0


class Sinkhorn(Attention[SinkhornAttention], spec=SinkhornAttention):
    """Sorts the blocks of keys and values by a balanced matrix, for each head (section 3).

    The sorting's logits are products of the blocks' mean queries and mean keys, each with a learned
    vector of its place: they do not depend on how many blocks there are. Without noise: the same
    input always gives the same output, in training too.
    """

    def __init__(self, spec: SinkhornAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        blocks = -(-slot.max_length // spec.block)
        self.places = nn.Parameter(torch.empty(2, slot.heads, blocks, self.head_width))
        nn.init.normal_(self.places)

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        N = x.shape[1]
        if self.max_length < N:
            message = f"{N} tokens, but the sorting was made for {self.max_length}"
            raise InvalidInput([Problem("", message)])
        size = min(self.spec.block, N)
        qk, v = self._project_densely(x, rotation)
        dtype = v.dtype
        with torch.autocast(x.device.type, enabled=False):
            valid = self._valid(mask, N, size, qk)
            qk = _blocks(widen(qk), size)
            v = _blocks(widen(v), size)
            if mask is not None:
                qk, v = qk * valid.unsqueeze(-1), v * valid.unsqueeze(-1)
            q, k = qk.unbind()  # once: the gradients of parts of it are filled up with zeros
            order = self.sort(q, k, valid)
            mixed = mix_sorted(q, k, v, order, valid, Cut(N, self.heads, self.causal))
        return mixed.to(dtype)

    def sort(self, q: Tensor, k: Tensor, valid: Tensor) -> Tensor:
        """The balanced matrix (P, n, n) of queries and keys (P, n, C, E), 0 where not valid.

        valid (P, n, C): 1 for valid tokens, else 0.
        """
        n = q.shape[1]
        means = torch.stack((self._mean_queries(q, valid), _mean(k.sum(2), valid.sum(2))))
        places = self.places[:, :, :n].to(means.dtype)
        means = means.view(2, -1, self.heads, n, self.head_width) + places.unsqueeze(1)
        q, k = means.flatten(1, 2).unbind()
        scale = 1 / (math.sqrt(self.head_width) * self.spec.temperature)
        whole = valid.amax(-1) > 0
        visible = whole.unsqueeze(2) & whole.unsqueeze(1)
        if self.causal:
            visible = visible.tril(-1)
        return balance(torch.bmm(q, k.mT) * scale, visible, self.spec.iterations, self.causal)

    def _mean_queries(self, q: Tensor, valid: Tensor) -> Tensor:
        """Of each block (P, n, E); when causal, of all tokens up to the first of the block."""
        if not self.causal:
            return _mean(q.sum(2), valid.sum(2))
        # shifted, not subtracted: a difference would keep the rounding of what comes later
        earlier, count = (t.sum(2)[:, :-1].cumsum(1) for t in (q, valid))
        first, own = q[:, :, 0], valid[:, :, 0]
        total = first + functional.pad(earlier, (0, 0, 1, 0))
        return _mean(total, own + functional.pad(count, (1, 0)))

    def _valid(self, mask: Tensor | None, N: int, size: int, like: Tensor) -> Tensor:
        """1 for valid tokens, else 0: (P, n, C)."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        if mask is not None:
            rows = mask.to(dtype).repeat_interleave(self.heads, dim=0)
            return functional.pad(rows, (0, -N % size)).view(rows.shape[0], -1, size)
        rows = functional.pad(like.new_ones(1, N, dtype=dtype), (0, -N % size))
        return rows.view(1, -1, size).expand(like.shape[1], -1, -1)


def _blocks(x: Tensor, size: int) -> Tensor:
    """(…, N, E) → (…, n, C, E), zeros after the end."""
    short = -x.shape[-2] % size
    whole = functional.pad(x, (0, 0, 0, short)) if short else x
    return whole.reshape(*x.shape[:-2], -1, size, x.shape[-1])


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp_min(1).unsqueeze(-1)


def balance(logits: Tensor, visible: Tensor, iterations: int, causal: bool) -> Tensor:
    """Sinkhorn's normalisation of exp(logits) (P, n, n): columns, then rows, again and again.

    visible (P, n, n): what else there is counts as 0. When causal, an entry of a column is divided
    by the sum of those above and itself alone (section 3.2). Rows sum to 1 in the end, or to 0.
    """
    return _balance(logits, visible, iterations, causal)


def balance_plainly(logits: Tensor, visible: Tensor, iterations: int, causal: bool) -> Tensor:
    """``balance`` with all that autograd keeps of it."""
    logits = torch.where(visible, logits, HIDDEN)
    for _ in range(iterations):
        column = logits.logcumsumexp(1) if causal else logits.logsumexp(1, keepdim=True)
        logits = torch.where(visible, logits - column, HIDDEN)
        logits = torch.where(visible, logits - logits.logsumexp(2, keepdim=True), HIDDEN)
    return torch.where(visible, logits, 0).exp() * visible


class _Balance(Function):
    """The backward pass computes the iterations again, a few matrices after the others."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, visible: Tensor, iterations: int, causal: bool) -> Tensor:
        ctx.save_for_backward(logits, visible)
        ctx.how = iterations, causal
        parts = [balance_plainly(logits[p], visible[p], *ctx.how) for p in _parts(logits)]
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, visible = ctx.saved_tensors
        through = torch.empty_like(logits)
        for p in _parts(logits):
            with torch.enable_grad():
                source = logits[p].detach().requires_grad_()
                order = balance_plainly(source, visible[p], *ctx.how)
            (through[p],) = torch.autograd.grad(order, source, grad[p])
        return through, None, None, None


_balance: Callable[..., Tensor] = _Balance.apply


def _parts(matrices: Tensor) -> Iterator[slice]:
    """Slices of (P, n, n) that are balanced together."""
    step = max(1, TOGETHER // matrices[0].numel())
    for start in range(0, matrices.shape[0], step):
        yield slice(start, min(start + step, matrices.shape[0]))


class Cut(NamedTuple):
    """What the shapes of blocks do not say: tokens, heads, and whether later ones are hidden."""

    length: int
    heads: int
    causal: bool


def mix_sorted(q: Tensor, k: Tensor, v: Tensor, order: Tensor, valid: Tensor, cut: Cut) -> Tensor:
    """Each block of queries (P, n, C, E) sees its own keys and those that ``order`` sorts to it.

    k, v: (P, n, C, E), 0 where not valid; order (P, n, n); valid (P, n, C), 1 or 0.
    Returns (B, N, D). A sorted key is the mean of the valid keys at its place in their blocks,
    weighted by a row of ``order``; it counts as much as the weights of those add up to.
    """
    return _apply(q, k, v, order, valid, cut)


def mix_sorted_plainly(
    q: Tensor, k: Tensor, v: Tensor, order: Tensor, valid: Tensor, cut: Cut
) -> Tensor:
    """``mix_sorted`` as it is defined, all blocks at once, (P, n, C, E)."""
    C, E = q.shape[2:]
    weight = order @ valid
    divisor = torch.where(weight > 0, weight, 1).unsqueeze(-1)
    k_sorted, v_sorted = (torch.einsum("pij,pjce->pice", order, t) / divisor for t in (k, v))
    scale = 1 / math.sqrt(E)
    own = (q @ k.mT * scale).masked_fill(valid.unsqueeze(2) == 0, HIDDEN)
    if cut.causal:
        own = own.masked_fill(torch.ones(C, C, dtype=torch.bool).triu(1), HIDDEN)
    counted = torch.where(weight > 0, divisor.squeeze(-1).log(), HIDDEN)
    scores = torch.cat((own, q @ k_sorted.mT * scale + counted.unsqueeze(2)), dim=-1)
    return scores.softmax(-1) @ torch.cat((v, v_sorted), dim=2)


class _MixSorted(Function):
    """Some blocks after the others; the backward pass sorts and weighs them again."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, order: Tensor, valid: Tensor, cut: Cut
    ) -> Tensor:
        P, E = q.shape[0], q.shape[3]
        out = q.new_empty(P // cut.heads, cut.length, cut.heads * E)
        rows = split_heads(out, cut.heads)
        tiles = _Tiles(q, k, v, order, valid, cut)
        for tile in tiles.all():
            tiles.mix(tile, rows)
            del tile  # before there is the next
        ctx.save_for_backward(q, k, v, order, valid, out)
        ctx.cut = cut
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, order, valid, out = ctx.saved_tensors
        C, E = q.shape[2:]
        scale = 1 / math.sqrt(E)
        grad, out = (split_heads(t.contiguous(), ctx.cut.heads) for t in (grad, out))
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        correction = torch.linalg.vecdot(grad, out).flatten(0, 1).unsqueeze(-1)
        grad, correction = _blocks(grad.flatten(0, 1), C), _blocks(correction, C)
        d_q, d_order = torch.empty_like(q), torch.empty_like(order)
        d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
        tiles = _Tiles(q, k, v, order, valid, ctx.cut)
        for tile in tiles.all():
            weights, g = tiles.weights(tile), tile.of(grad)
            d_values = torch.bmm(weights.mT, g)
            d = torch.baddbmm(tile.of(correction), g, tile.values.mT, beta=-1).mul_(weights)
            torch.mul(torch.bmm(d, tile.keys), scale, out=tile.of(d_q))
            d_keys = torch.bmm(d.mT, tile.of(q)).mul_(scale)
            tile.of(d_k).add_(d_keys[:, :C])
            tile.of(d_v).add_(d_values[:, :C])
            tiles.unsort(tile, d_keys[:, C:], d_values[:, C:], d.sum(1)[:, C:], (d_k, d_v, d_order))
            del tile, weights, g, d, d_keys, d_values  # before there is the next
        return d_q, d_k, d_v, d_order, None, None


_apply: Callable[..., Tensor] = _MixSorted.apply


class _Tile(NamedTuple):
    """Some blocks of some rows with what they see, own before sorted.

    keys, values: (m, 2C, E).  bias: (m, 1, 2C).  share: one by the weights of the sorted keys,
    (m, C, 1), 0 where there are none.
    """

    row: int
    rows: int
    blocks: slice
    place: int
    keys: Tensor
    values: Tensor
    bias: Tensor
    share: Tensor

    def of(self, x: Tensor) -> Tensor:
        """The tile's part of a (P, n, C, ·) as a view (m, C, ·)."""
        return x[self.row : self.row + self.rows, self.blocks].flatten(0, 1)


class _Tiles:
    """The tiles of blocks (P, n, C, E)."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, order: Tensor, valid: Tensor, cut: Cut
    ) -> None:
        self.q, self.k, self.v, self.order, self.valid = q, k, v, order, valid
        self.P, self.n, self.C, self.E = q.shape
        self.bias = q.new_zeros(self.C, 2 * self.C)
        if cut.causal:
            self.bias[:, : self.C] = torch.full_like(self.bias[:, : self.C], HIDDEN).triu(1)

    def all(self) -> Iterator[_Tile]:
        """One after the other."""
        rows, blocks = together(self.P, self.n, self.C)
        for p in range(0, self.P, rows):
            for i in range(0, self.n, blocks):
                yield self._sort(slice(p, min(p + rows, self.P)), slice(i, min(i + blocks, self.n)))

    def weights(self, tile: _Tile) -> Tensor:
        """Softmax weights (m, C, 2C)."""
        q, scale = tile.of(self.q), 1 / math.sqrt(self.E)
        scores = torch.baddbmm(self.bias, q, tile.keys.mT, alpha=scale)
        return scores.add_(tile.bias).softmax(dim=-1)

    def mix(self, tile: _Tile, out: Tensor) -> None:
        """Write the means of values to their places in ``out`` (B, H, N, E)."""
        mixed = torch.bmm(self.weights(tile), tile.values)
        for p, part in enumerate(mixed.view(tile.rows, -1, self.E), tile.row):
            into = out[p // out.shape[1], p % out.shape[1], tile.place :]
            into[: part.shape[0]] = part[: into.shape[0]]

    def _sort(self, rows: slice, blocks: slice) -> _Tile:
        order, valid = self.order[rows, blocks], self.valid[rows]
        weight = torch.bmm(order, valid)
        share = weight.reciprocal().masked_fill_(weight == 0, 0).view(-1, self.C, 1)
        bias = torch.cat((valid[:, blocks], weight), dim=2).log_().clamp_min_(HIDDEN)

        def seen(x: Tensor) -> Tensor:
            both = x.new_empty(share.shape[0], 2 * self.C, self.E)
            both[:, : self.C] = x[rows, blocks].flatten(0, 1)
            moved = torch.bmm(order, x[rows].flatten(2)).view(-1, self.C, self.E)
            torch.mul(moved, share, out=both[:, self.C :])
            return both

        size = rows.stop - rows.start
        place = blocks.start * self.C
        bias = bias.view(-1, 1, 2 * self.C)
        keys, values = seen(self.k), seen(self.v)
        return _Tile(rows.start, size, blocks, place, keys, values, bias, share)

    def unsort(
        self,
        tile: _Tile,
        d_keys: Tensor,
        d_values: Tensor,
        d_bias: Tensor,
        into: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """From gradients of sorted keys and values (m, C, E) and their biases (m, C), those of all
        keys and values, added to the first two of ``into``, and of the order, written to the last.
        """
        rows = slice(tile.row, tile.row + tile.rows)
        order, d_order = (x[rows, tile.blocks] for x in (self.order, into[2]))
        keys, values = tile.keys[:, self.C :], tile.values[:, self.C :]
        # a mean's gradient by its weights: what all have in common is taken off
        common = torch.linalg.vecdot(d_keys, keys) + torch.linalg.vecdot(d_values, values)
        d_weight = d_bias.sub(common).mul_(tile.share.squeeze(-1)).view(tile.rows, -1, self.C)
        d_order.copy_(torch.bmm(d_weight, self.valid[rows].mT))
        for x, d, total in ((self.k, d_keys, into[0]), (self.v, d_values, into[1])):
            moved = torch.mul(d, tile.share).view(tile.rows, -1, self.C * self.E)
            d_order.add_(torch.bmm(moved, x[rows].flatten(2).mT))
            total[rows].flatten(2).add_(torch.bmm(order.mT, moved))
