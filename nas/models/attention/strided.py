"""Strided sparse attention: the positions around, and every position a multiple of l away.

Shapes: B batch, N sequence, H heads, P = B·H rows, D width, E head width, L the stride; the
sequence is a grid of n rows of L positions. For a band of it: p rows of P, R rows of the grid,
W of them around each, C positions seen of each column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import Attention, split_heads
from nas.models.attention.blocks import exponentials, hide, mix_seen_plainly
from nas.models.attention.window import HIDDEN, Rows
from nas.models.positions import Rotation
from search_spaces.attention.blocks import Group, groups
from search_spaces.attention.strided import Band, StridedAttention, bands


class Cut(NamedTuple):
    """What the shapes do not say: N, heads, L, and whether later positions are hidden."""

    length: int
    heads: int
    size: int
    causal: bool


class Strided(Attention[StridedAttention], spec=StridedAttention):
    """One softmax over the union of both sets of section 4.2, for every head."""

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        N = x.shape[1]
        cut = self._cut(N)
        if N % cut.size and mask is None and not self.causal:
            mask = torch.ones(1, N, dtype=torch.bool, device=x.device)
        if mask is not None:
            mask = functional.pad(mask, (0, -N % cut.size))
        qk, v = self._project_densely(x, rotation)
        qk = completed(qk, cut.size)  # before the values: what is not complete is given back
        v = completed(v, cut.size)
        q, k = qk.unbind()
        return mix_strided(q, k, v, cut, mask)

    def _cut(self, N: int) -> Cut:
        return Cut(N, self.heads, min(self.spec.stride, N), self.causal)

    def _first_state(self, batch_size: int) -> Rows:
        empty = self._zeros(batch_size * self.heads, 0, self.head_width)
        return Rows(empty, empty)

    def _continue(self, x: Tensor, state: Rows, rotation: Rotation | None) -> tuple[Tensor, Rows]:
        N, T = x.shape[1], state.keys.shape[1]
        qk, v = self._project_densely(x, rotation)
        q, k = qk.unbind()
        state = state.followed_by(k, v)
        if N == 1:
            rows = (q, self._seen_by_last(state.keys), self._seen_by_last(state.values))
            q, k, v = (t.view(-1, self.heads, *t.shape[1:]) for t in rows)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            return mixed.transpose(1, 2).flatten(2), state
        # queries in place of those before: columns lie as they do in the whole sequence
        cut, whole = self._cut(T + N), functional.pad(q, (0, 0, T, 0))
        q, k, v = (completed(t, cut.size) for t in (whole, *state))
        return mix_strided(q, k, v, cut, None)[:, T:], state

    def _seen_by_last(self, rows: Tensor) -> Tensor:
        """Those of (P, N, E) that the last position sees."""
        last, stride = rows.shape[1] - 1, self.spec.stride
        if last < stride:
            return rows
        near = rows[:, last - stride + 1 :]
        return torch.cat((rows[:, last % stride : last - stride + 1 : stride], near), dim=1)


def completed(x: Tensor, size: int) -> Tensor:
    """(…, N, E) with zeros after the end up to a multiple of ``size`` rows."""
    short = -x.shape[-2] % size
    return functional.pad(x, (0, 0, 0, short)) if short else x


def mix_strided(q: Tensor, k: Tensor, v: Tensor, cut: Cut, valid: Tensor | None) -> Tensor:
    """Attention of queries (P, n·L, E) to the same positions, (B, N, D).

    valid: (B, n·L) or (1, n·L), True = key may be seen.
    Rows of the grid see the rows around, columns see themselves; one softmax is over both.
    A query whose keys are all padding gets a mean of some.
    """
    return _apply(q, k, v, hide(valid, q), cut, list(bands(q.shape[1], cut.size, cut.causal)))


def mix_strided_plainly(q: Tensor, k: Tensor, v: Tensor, cut: Cut, valid: Tensor | None) -> Tensor:
    """``mix_strided`` as it is defined, for any N: N² in time and memory."""
    i = torch.arange(q.shape[1], device=q.device)
    distance = i.unsqueeze(1) - i
    seen = (distance.abs() <= cut.size) | (distance % cut.size == 0)
    if cut.causal:
        seen = seen.tril()
    if valid is not None:
        seen = seen & valid[:, None, None]
    return mix_seen_plainly(q, k, v, cut.heads, seen)


class _MixStrided(Function):
    """Band after band; the backward pass computes the weights again."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        hidden: Tensor | None,
        cut: Cut,
        bands: Sequence[Band],
    ) -> Tensor:
        P, N, E = q.shape
        out = q.new_empty(P // cut.heads, cut.length, cut.heads * E)
        by_head = split_heads(out, cut.heads)
        most, mass = q.new_empty(2, P, N, 1).unbind()
        for part in _parts(q, cut, bands):
            near, far = part.scores(q, k, hidden)
            highest, total = part.own(most), part.own(mass)
            torch.amax(near.view(*highest.shape[:4], -1), dim=-1, keepdim=True, out=highest)
            if far is not None:
                torch.maximum(highest, part.along(far.amax(-1, keepdim=True)), out=highest)
            part.weigh(near, far, most)
            torch.sum(near.view(*total.shape[:4], -1), dim=-1, keepdim=True, out=total)
            mixed = torch.bmm(near, part.around(v)).view(*total.shape[:4], E)
            if far is not None:
                total.add_(part.along(far.sum(-1, keepdim=True)))
                mixed.add_(part.along(torch.bmm(far, part.column(v))))
            part.write(mixed.div_(total), by_head)
            del near, far, mixed  # before there are the next
        ctx.save_for_backward(q, k, v, hidden, most, mass, out)
        ctx.how = cut, bands
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden, most, mass, out = ctx.saved_tensors
        cut: Cut = ctx.how[0]
        scale = 1 / math.sqrt(q.shape[2])
        # weights come without their division by the mass: the gradient is divided, once
        g, correction = torch.zeros_like(q), torch.zeros_like(mass)
        grad, out = (split_heads(t.contiguous(), cut.heads) for t in (grad, out))
        into, total, along = (
            t.unflatten(0, (-1, cut.heads))[:, :, : cut.length] for t in (g, mass, correction)
        )
        torch.div(grad, total, out=into)
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        along.copy_(torch.linalg.vecdot(into, out).unsqueeze(-1))
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for part in _parts(q, *ctx.how):
            near, far = part.scores(q, k, hidden)
            part.weigh(near, far, most)
            rows = part.queries(g)
            part.add_around(d_v, torch.bmm(near.mT, rows), 1)
            d = torch.bmm(rows, part.around(v).mT)
            d.sub_(part.queries(correction)).mul_(near)
            part.add_around(d_k, torch.bmm(d.mT, part.queries(q)), scale)
            into = part.own(d_q)
            torch.mul(torch.bmm(d, part.around(k)).view(into.shape), scale, out=into)
            if far is not None:
                rows = part.upright(part.own(g))
                part.add_column(d_v, torch.bmm(far.mT, rows), 1)
                d = torch.bmm(rows, part.column(v).mT)
                d.sub_(part.upright(part.own(correction))).mul_(far)
                part.add_column(d_k, torch.bmm(d.mT, part.upright(part.own(q))), scale)
                into.add_(part.along(torch.bmm(d, part.column(k))), alpha=scale)
            del near, far, d  # before there are the next
        return d_q, d_k, d_v, None, None, None


_apply: Callable[..., Tensor] = _MixStrided.apply


def _parts(q: Tensor, cut: Cut, bands: Sequence[Band]) -> Iterator[_Part]:
    L = cut.size
    i, j = torch.arange(L, device=q.device).unsqueeze(1), torch.arange(3 * L, device=q.device) - L
    near = (j > i - L) & (j <= i if cut.causal else j < i + L)
    near_bias = torch.where(near, 0.0, HIDDEN).to(q.dtype)
    for band in bands:
        around = near_bias[:, (1 - band.before) * L : (2 + band.after) * L]
        i = torch.arange(band.first, band.last, device=q.device).unsqueeze(1)
        j = torch.arange(band.column, device=q.device)
        along = torch.where(j < i if cut.causal else j != i, 0.0, HIDDEN).to(q.dtype)
        for group in groups(q.shape[0] // cut.heads, cut.heads, band.scores(L)):
            yield _Part(band, group, cut, around, along)


class _Part(NamedTuple):
    """A band for a group of rows, with what is added to its scores: (L, W·L) and (R, C)."""

    band: Band
    group: Group
    cut: Cut
    near_bias: Tensor
    far_bias: Tensor

    def own(self, x: Tensor) -> Tensor:
        """The band of (P, n·L, ·), a view (b, h, R, L, ·)."""
        rows = slice(self.band.first, self.band.last)
        return self._grid(x)[self.group.batch, self.group.heads, rows]

    def write(self, x: Tensor, into: Tensor) -> None:
        """Put (b, h, R, L, E) in its place in (B, H, N, E), up to the end of that."""
        place = into[self.group.batch, self.group.heads, self.band.first * self.cut.size :]
        x = x.flatten(2, 3)[:, :, : place.shape[2]]
        place[:, :, : x.shape[2]] = x

    def queries(self, x: Tensor) -> Tensor:
        """The same row by row, (p·R, L, ·)."""
        return self.own(x).flatten(0, 2)

    def around(self, x: Tensor) -> Tensor:
        """The rows around each row, (p·R, W·L, ·), of (P, n·L, ·)."""
        L, band = self.cut.size, self.band
        whole = self._windowed(self._grid(x)).flatten(2, 3)
        return whole.unfold(2, band.around * L, L).mT.flatten(0, 2)

    def add_around(self, total: Tensor, d: Tensor, alpha: float) -> None:
        """Add α·(p·R, W·L, E) to the rows of (P, n·L, E) that it is of."""
        into = self._windowed(self._grid(total))
        d = d.view(*into.shape[:2], self.band.rows, self.band.around, *into.shape[3:])
        for w in range(self.band.around):
            into[:, :, w : w + self.band.rows].add_(d[:, :, :, w], alpha=alpha)

    def column(self, x: Tensor) -> Tensor:
        """What is seen of each column, (p·L, C, ·), of (P, n·L, ·)."""
        return self.upright(self._columns(x))

    def add_column(self, total: Tensor, d: Tensor, alpha: float) -> None:
        """Add α·(p·L, C, E) to the columns of (P, n·L, E) that it is of."""
        self._columns(total).add_(self.along(d), alpha=alpha)

    @staticmethod
    def upright(x: Tensor) -> Tensor:
        """(b, h, R, L, ·) → (p·L, R, ·)."""
        return x.transpose(2, 3).flatten(0, 2)

    def along(self, x: Tensor) -> Tensor:
        """(p·L, R, ·) → (b, h, R, L, ·), a view."""
        b, h = (s.stop - s.start for s in self.group)
        return x.view(b, h, self.cut.size, *x.shape[1:]).transpose(2, 3)

    def scores(self, q: Tensor, k: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Of the rows around (p·R, L, W·L) and of columns (p·L, R, C), if any are seen.

        hidden: what is added for keys (B, n·L), or one row for all.
        """
        scale = 1 / math.sqrt(q.shape[2])
        near = torch.baddbmm(self.near_bias, self.queries(q), self.around(k).mT, alpha=scale)
        far, own = None, self.own(q)
        if self.band.column:
            upright = self.upright(own)
            far = torch.baddbmm(self.far_bias, upright, self.column(k).mT, alpha=scale)
        if hidden is not None:
            L, band = self.cut.size, self.band
            rows = hidden.view(-1, 1, hidden.shape[1] // L, L)
            rows = rows[self.group.batch] if rows.shape[0] > 1 else rows
            around = rows[:, :, band.first - band.before : band.last + band.after].flatten(2)
            around = around.unfold(2, band.around * L, L)
            near.view(*own.shape[:4], -1).add_(around.unsqueeze(3))
            if far is not None:
                columns = rows[:, :, : band.column].transpose(2, 3).unsqueeze(2)
                self.along(far).add_(columns)
        return near, far

    def weigh(self, near: Tensor, far: Tensor | None, most: Tensor) -> None:
        """Write exp(score - most) over the scores; most (P, n·L, 1)."""
        exponentials(near.sub_(self.queries(most)), some_hidden=True)
        if far is not None:
            exponentials(far.sub_(self.upright(self.own(most))), some_hidden=True)

    def _grid(self, x: Tensor) -> Tensor:
        """(P, n·L, ·) → (B, H, n, L, ·), a view."""
        L = self.cut.size
        return x.view(-1, self.cut.heads, x.shape[1] // L, L, x.shape[2])

    def _windowed(self, grid: Tensor) -> Tensor:
        band = self.band
        rows = slice(band.first - band.before, band.last + band.after)
        return grid[self.group.batch, self.group.heads, rows]

    def _columns(self, x: Tensor) -> Tensor:
        grid = self._grid(x)
        return grid[self.group.batch, self.group.heads, : self.band.column]
