"""Reformer: attention within buckets of a locality-sensitive hash.

Shapes: B batch, N sequence, H heads, D width, E head width, R rounds of hashing, C chunk,
P = B·H rows,
T chunks of the rows that are sorted together.
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

from nas.models.attention.base import Attention, AttentionSlot, widen
from nas.models.positions import Rotation, rotate
from nas.models.replay import remembered
from search_spaces.attention.reformer import Layout, ReformerAttention, factors, layout

HIDDEN = -1e30  # finite, so that a query that sees nothing has no 0 / 0
UNSEEN = -1e20  # times at most the square of a number of chunks
ITSELF = -1e5  # the paper's own: nothing beside any other key, everything beside none
SHORT = 1e-6  # added at a right angle to keys, lest the gradient of their direction explode


class Reformer(Attention[ReformerAttention], spec=ReformerAttention):
    """Shared-QK attention by hashing (sections 2 and 3); queries are their own keys, which are
    brought to length 1 and not scaled further, so that scores are of order 1.

    The number of buckets belongs to the longest sequence, not to the one at hand: padding and
    later tokens must not move a token to another bucket.
    """

    rotations: Tensor

    def __init__(self, spec: ReformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.qkv = nn.Linear(slot.d_model, 2 * slot.d_model, bias=False)
        nn.init.normal_(self.qkv.weight, std=1 / math.sqrt(slot.d_model))
        self.factors = factors(slot.max_length, spec.chunk, slot.causal)
        shape = spec.rounds(slot.max_length, slot.causal), self.head_width, sum(self.factors) // 2
        generator = torch.Generator().manual_seed(int(torch.randint(2**31 - 1, ())))
        self.register_buffer("rotations", torch.randn(shape, generator=generator))

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        B, N, _ = x.shape
        w_qk, w_v = self.qkv.weight.chunk(2)
        with torch.autocast(x.device.type, enabled=False):
            # not in half precision: its rounding would send tokens to other buckets
            qk = functional.linear(x.to(w_qk.dtype), w_qk).view(B, N, self.heads, -1)
            qk = widen(qk if rotation is None else rotate(qk, rotation))
        v = functional.linear(x, w_v)
        with torch.autocast(x.device.type, enabled=False):
            buckets = remembered(lambda: self._buckets(qk.detach()))
            count = math.prod(self.factors)
            if mask is not None:
                buckets = buckets.masked_fill(~mask.unsqueeze(-1), count)
                count += 1
            cut = layout(N, self.spec.chunk, count, self.causal)
            mixed = mix_hashed(qk, widen(v).view(qk.shape), buckets, cut)
        return mixed.to(v.dtype)

    def _buckets(self, qk: Tensor) -> Tensor:
        """The bucket of each token in each round, (B, N, H, E) → (R, B, N, H).

        The nearest of the vectors ± the columns of a random matrix (section 3.1).
        """
        rounds = []
        for matrix in self.rotations.to(qk.dtype):
            bucket = torch.zeros(qk.shape[:-1], dtype=torch.int64, device=qk.device)
            turned = torch.matmul(qk, matrix)
            parts = torch.split(turned, [size // 2 for size in self.factors], dim=-1)
            for size, part in zip(self.factors, parts, strict=True):
                nearest = part.abs().argmax(dim=-1, keepdim=True)
                opposite = (part.gather(-1, nearest) < 0) * (size // 2)
                bucket.mul_(size).add_(nearest.add_(opposite).squeeze(-1))
            rounds.append(bucket.to(torch.int32))
        return torch.stack(rounds)


def _inverse_length(x: Tensor) -> Tensor:
    """(…, E) → (…, 1)."""
    square: Tensor = torch.linalg.vecdot(x, x)
    return (square + SHORT * SHORT).rsqrt().unsqueeze(-1)


def mix_hashed(qk: Tensor, v: Tensor, buckets: Tensor, cut: Layout) -> Tensor:
    """Attention of queries (B, N, H, E), which are the keys too, by bucket, (B, N, D).

    buckets: (R, B, N, H). A pair that meets in several rounds counts in the first of them alone:
    the softmax is over the union of the rounds, which is what equations 7 and 8 come to with their
    correction by the number of meetings.
    """
    rows = buckets.transpose(2, 3).flatten(1, 2).contiguous()
    placed = [_place(row, cut) for row in rows]
    slots, codes = (torch.stack(t) for t in zip(*placed, strict=True))
    del rows, placed  # the most memory is taken from here on
    return _apply(qk, v, slots, codes, cut)


def mix_hashed_plainly(qk: Tensor, v: Tensor, buckets: Tensor, cut: Layout) -> Tensor:
    """``mix_hashed`` as it is defined, with equations 7 and 8: N² in time and memory."""
    q, values = (t.transpose(1, 2) for t in (qk, v))
    scores = q @ (q * _inverse_length(q)).transpose(2, 3)
    N = q.shape[2]
    rounds = []
    for bucket in buckets.transpose(2, 3):
        same = bucket.unsqueeze(-1) == bucket.unsqueeze(-2)
        if cut.causal:
            place = same.tril(-1).sum(-1)  # among those of its bucket
        else:
            place = bucket.argsort(dim=-1, stable=True).argsort(dim=-1)
        chunk = place // cut.size
        behind = chunk.unsqueeze(-1) - chunk.unsqueeze(-2)
        seen = same & (behind >= 0) & (behind <= 1)
        rounds.append(seen.tril() if cut.causal else seen)
    meetings = torch.stack(rounds).to(q.dtype).sum(0)
    itself = torch.eye(N, dtype=torch.bool, device=q.device)
    scores = torch.where(itself, scores + ITSELF, scores - meetings.clamp_min(1).log())
    masked = [scores.masked_fill(~seen, HIDDEN) for seen in rounds]
    z = torch.stack([s.logsumexp(-1) for s in masked])
    weights = (z - z.logsumexp(0)).exp().unsqueeze(-1)
    mixed = sum(w * (s.softmax(-1) @ values) for w, s in zip(weights, masked, strict=True))
    return torch.as_tensor(mixed).transpose(1, 2).flatten(2)


def _place(bucket: Tensor, cut: Layout) -> tuple[Tensor, Tensor]:
    """Where the tokens of buckets (P, N) stand when each row is sorted: slots and codes, (P, N).

    A query sees a key if its code is that of the key or one more: they share a bucket, and the
    key is in the query's chunk or the one before.
    """
    P, N = bucket.shape
    ordered, order = bucket.sort(dim=-1, stable=True)
    place = torch.arange(N, device=bucket.device).expand(P, N)
    if cut.causal:
        # a token's place in its bucket counts earlier tokens only: nothing shifts chunk limits
        edges = torch.arange(cut.buckets + 1, dtype=ordered.dtype, device=bucket.device)
        first = torch.searchsorted(ordered, edges.expand(P, -1).contiguous())
        chunks = (first.diff(dim=-1) + cut.size - 1) // cut.size
        shift = (chunks.cumsum(-1) - chunks) * cut.size - first[:, :-1]
        place = place + shift.gather(-1, ordered.long())
    slot = torch.empty_like(order).scatter_(-1, order, place)
    return slot.to(torch.int32), (slot // cut.size + 2 * bucket).to(torch.int32)


class _MixHashed(Function):
    """Round after round, in slices of sorted chunks; the backward pass computes them again."""

    @staticmethod
    def forward(
        ctx: Any, qk: Tensor, v: Tensor, slots: Tensor, codes: Tensor, cut: Layout
    ) -> Tensor:
        B, N, H, E = qk.shape
        out = v.new_empty(B, N, H, E)
        # log-sum-exp over what a query sees in each round
        totals = v.new_empty(slots.shape[0], B, N, H, 1)
        tiles = _Sorted(qk, v, slots, codes, cut)
        mixed_by_slot = torch.empty_like(tiles.q)
        for rows in tiles.groups():
            mixed, total = v.new_zeros(rows.size, E), v.new_full((rows.size, 1), HIDDEN)
            for r, its_totals in enumerate(totals):
                tiles.load(r, rows)
                its_total = tiles.mix(mixed_by_slot)
                tiles.write(its_total, its_totals)
                both = torch.logaddexp(total, its_total)
                mixed.mul_(_exp(total.sub_(both)))
                mixed.addcmul_(tiles.unsort(mixed_by_slot), _exp(its_total.sub_(both)))
                total = both
            tiles.write(mixed, out)
        ctx.save_for_backward(qk, v, slots, codes, out, totals)
        ctx.cut = cut
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qk, v, slots, codes, out, totals = ctx.saved_tensors
        shares = _exp(totals - totals.logsumexp(dim=0))  # of a round in what a query gets
        grad = grad.reshape(out.shape).contiguous()
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        correction = torch.linalg.vecdot(grad, out).unsqueeze(-1)
        d_qk, d_v = torch.empty_like(qk), torch.empty_like(v)
        tiles = _Sorted(qk, v, slots, codes, ctx.cut)
        g, d_q, d_k, d_w = (torch.empty_like(t) for t in (tiles.q, tiles.q, tiles.k, tiles.v))
        for rows in tiles.groups():
            into_qk, into_v = v.new_zeros(2, rows.size, v.shape[-1]).unbind()
            for r in range(slots.shape[0]):
                tiles.load(r, rows)
                share = tiles.sort(shares[r]).mul_(tiles.filled)
                tiles.sort(grad, g)[: share.shape[0]].mul_(share)
                tiles.unmix(g, tiles.sort(correction).mul_(share), d_q, d_k, d_w)
                into_qk += tiles.unsort(d_q)
                into_v += tiles.unsort(d_w[ctx.cut.size :])
            tiles.write(into_qk, d_qk)
            tiles.write(into_v, d_v)
        return d_qk, d_v, None, None, None


_apply: Callable[..., Tensor] = _MixHashed.apply


def _exp(x: Tensor) -> Tensor:
    """exp(x), x ≤ 0, written over x; 0 where it is less than e⁻⁸⁰.

    The vector library is some forty times slower where its result underflows.
    """
    return torch.threshold_(x.clamp_min_(-80).exp_(), 2e-35, 0)


class _Rows(NamedTuple):
    """Rows [start, stop) of P, of N tokens each."""

    start: int
    stop: int
    tokens: int

    @property
    def size(self) -> int:
        """Tokens of all rows."""
        return (self.stop - self.start) * self.tokens


class _Sorted:
    """Queries, keys and values of a round for some of the rows, sorted into T·C slots.

    All rounds use the same memory. Keys and values begin with a chunk that nobody sees, so that
    each chunk has a previous one.
    """

    def __init__(self, qk: Tensor, v: Tensor, slots: Tensor, codes: Tensor, cut: Layout) -> None:
        self.source, self.values, self.slots, self.codes, self.cut = qk, v, slots, codes, cut
        B, self.N, self.H, E = qk.shape
        self.P, C = B * self.H, cut.size
        most = cut.together(self.P) * cut.slots
        self.q, self.k = qk.new_empty(most, E), qk.new_zeros(most + C, E)
        self.v = qk.new_zeros(most + C, E)
        self.tile = qk.new_empty(3, cut.slice(most // C), C, 2 * C)
        self.bias = qk.new_zeros(C, 2 * C)
        self.bias.diagonal(C).fill_(ITSELF)
        if cut.causal:
            self.bias += torch.full_like(self.bias, HIDDEN).triu(C + 1)

    def groups(self) -> Iterator[_Rows]:
        """The rows, cut into groups that are handled together."""
        step = self.cut.together(self.P)
        for start in range(0, self.P, step):
            yield _Rows(start, min(start + step, self.P), self.N)

    def load(self, r: int, rows: _Rows) -> None:
        """Sort the rows as round ``r`` has them."""
        cut, device = self.cut, self.slots.device
        C = cut.size
        here = slice(rows.start, rows.stop)
        self.rows, self.T = rows, (rows.stop - rows.start) * cut.chunks
        row = torch.arange(rows.stop - rows.start, device=device).unsqueeze(1)
        self.slot = (self.slots[r, here] + row * cut.slots).flatten()
        # an empty slot repeats the first token, and nobody sees it
        tokens = self.slot.new_zeros(self.T * C)
        tokens[self.slot] = torch.arange(rows.size, device=device)
        p, n = tokens // self.N + rows.start, tokens % self.N
        self.tokens = (p // self.H * self.N + n) * self.H + p % self.H
        apart = row * (cut.chunks + 2 * cut.buckets)
        code = (self.codes[r, here] + apart).flatten().to(self.q.dtype)
        ours = code.new_full((self.T * C,), -8).scatter_(0, self.slot, code)
        self.filled = (ours >= 0).to(ours.dtype).unsqueeze(1)
        if cut.causal:
            # all tokens of a chunk share a bucket, and empty slots come last
            step = ours[::C].diff(prepend=ours.new_full((1,), -8))
            self.begins = ((step != 1) * HIDDEN).view(-1, 1, 1)
        else:
            theirs = code.new_full((self.T * C + C,), -4)
            theirs[C:].scatter_(0, self.slot, code)
            self.now = ours, theirs
        self.earlier = []
        for earlier in self.codes[:r, here]:
            at = earlier.flatten().index_select(0, tokens).to(self.q.dtype)
            # codes of queries and keys that meet differ by ± 1/2, others by more
            self.earlier.append((at - 0.5, functional.pad(at, (C, 0), value=-4)))
        self.sort(self.source, self.q)
        q, k = self.q[: self.T * C], self.k[C : C + self.T * C]
        self.inverse = _inverse_length(q)
        torch.mul(q, self.inverse, out=k)
        self.sort(self.values, self.v[C:])

    def sort(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Rows of a contiguous (B, N, H, ·) in the order of slots, (T·C, ·) or the first of out."""
        x = x.view(-1, x.shape[-1])
        if out is None:
            return x.index_select(0, self.tokens)
        torch.index_select(x, 0, self.tokens, out=out[: self.tokens.numel()])
        return out

    def unsort(self, x: Tensor) -> Tensor:
        """Rows (T·C, ·) in the order of tokens, row after row."""
        return x.index_select(0, self.slot)

    def write(self, x: Tensor, out: Tensor) -> None:
        """Put tokens of rows after one another in their places in a (B, N, H, ·)."""
        for i, part in enumerate(torch.split(x, self.N)):
            b, h = divmod(self.rows.start + i, self.H)
            out[b, :, h] = part

    def mix(self, out: Tensor) -> Tensor:
        """Write the means of values to ``out`` (T·C, E); log-sum-exp of the scores of tokens."""
        C = self.cut.size
        mixed, values = self._chunks(out), self._windows(self.v).transpose(1, 2)
        total, largest = out.new_empty(2, self.T, C, 1).unbind()
        for part in self._slices():
            scores = self._scores(part)
            torch.amax(scores, dim=-1, keepdim=True, out=total[part])
            weights = self._weights(scores)
            torch.amax(weights, dim=-1, keepdim=True, out=largest[part])
            torch.bmm(weights, values[part], out=mixed[part])
        # the largest weight is exp(most - total)
        return self.unsort(total.sub_(largest.log_()).view(-1, 1))

    def unmix(
        self, grad: Tensor, correction: Tensor, d_q: Tensor, d_k: Tensor, d_v: Tensor
    ) -> None:
        """Write the gradients of queries to ``d_q`` (T·C, E), of values to ``d_v`` (C + T·C, E).

        The other arguments are sorted too; ``d_k`` is for use in between.
        """
        C = self.cut.size
        d_k.zero_()
        d_v.zero_()
        g, correction, q, into = map(self._chunks, (grad, correction, self.q, d_q))
        keys, values = self._windows(self.k).transpose(1, 2), self._windows(self.v)
        pairs = grad.new_empty(self.tile.shape[1], 2 * C, grad.shape[-1])
        for part in self._slices():
            scores = self._scores(part)
            weights, both = self._weights(scores), pairs[: scores.shape[0]]
            self._add(d_v, part, torch.bmm(weights.transpose(1, 2), g[part], out=both))
            d = torch.baddbmm(correction[part], g[part], values[part], beta=-1, out=scores)
            d.mul_(weights)
            torch.bmm(d, keys[part], out=into[part])
            self._add(d_k, part, torch.bmm(d.transpose(1, 2), q[part], out=both))
        k, d_k, d_q = (t[: self.T * C] for t in (self.k[C:], d_k[C:], d_q))
        # through k = q / √(|q|² + ε²)
        along = torch.linalg.vecdot(k, d_k).unsqueeze(-1)
        d_q.add_(d_k.addcmul_(k, along, value=-1).mul_(self.inverse))

    def _weights(self, scores: Tensor) -> Tensor:
        """Softmax weights (t, C, 2C)."""
        return torch.softmax(scores, dim=-1, out=self.tile[1, : scores.shape[0]])

    def _slices(self) -> Iterator[slice]:
        step = self.cut.slice(self.T)
        for start in range(0, self.T, step):
            yield slice(start, min(start + step, self.T))

    def _scores(self, part: slice) -> Tensor:
        """(t, C, 2C), very low where a query does not see a key or saw it in an earlier round."""
        C = self.cut.size
        scores, by, met = torch.unbind(self.tile[:, : part.stop - part.start])
        torch.baddbmm(
            self.bias, self._chunks(self.q)[part], self._windows(self.k)[part], out=scores
        )
        if self.cut.causal:
            scores[:, :, :C].add_(self.begins[part])
        else:
            # codes differ by d; d(d - 1) is 0 if d is 0 or 1, else at least 2
            q, k = self._codes(*self.now, part)
            scores.addcmul_(torch.sub(q, k, out=by), torch.sub(q - 1, k, out=met), value=UNSEEN)
        for i, codes in enumerate(self.earlier):
            d = torch.sub(*self._codes(*codes, part), out=by if i else met)
            d.mul_(d)
            if i:
                torch.minimum(met, d, out=met)
        if self.earlier:  # 1/4 if they met, else at least 9/4
            scores.add_(met.clamp_max_(1.25).sub_(1.25), alpha=-UNSEEN)
        return scores

    def _codes(self, ours: Tensor, theirs: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Those of queries (t, C, 1) and of keys (t, 1, 2C)."""
        C = self.cut.size
        return ours.view(self.T, C, 1)[part], theirs.unfold(0, 2 * C, C)[part].unsqueeze(1)

    def _chunks(self, rows: Tensor) -> Tensor:
        """The first T·C rows, (T, C, ·)."""
        return rows[: self.T * self.cut.size].view(self.T, self.cut.size, -1)

    def _windows(self, rows: Tensor) -> Tensor:
        """Of (C + T·C, E), each chunk and the one before it, as a view (T, E, 2C)."""
        C, E = self.cut.size, rows.shape[-1]
        return rows.as_strided((rows.shape[0] // C - 1, E, 2 * C), (C * E, 1, E))

    def _add(self, rows: Tensor, part: slice, windows: Tensor) -> None:
        """Add windows (t, 2C, E) to the rows that they are of."""
        C = self.cut.size
        chunks = rows.view(-1, C, rows.shape[-1])
        chunks[part] += windows[:, :C]
        chunks[part.start + 1 : part.stop + 1] += windows[:, C:]
