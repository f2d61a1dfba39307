"""Softmax attention of blocks of queries to ranges of keys.

Shapes: B batch, N sequence, H heads, P = B·H rows, D width, E head width, M keys, S summary keys,
p rows of a group, C queries of a tile, K keys that it sees.
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

from nas.models.attention.base import split_heads
from nas.models.attention.window import HIDDEN, Rows
from search_spaces.attention.blocks import Group, Tile, groups, memory


class Keys(NamedTuple):
    """Keys and values of the sequence (P, M, E) with those of summaries (P, S, E).

    hidden: what is added to the scores of keys that must not be seen (B, M), and the same for
    summaries (B, S); None: all are seen.
    """

    own: Rows
    summaries: Rows
    hidden: Tensor | None = None
    hidden_summaries: Tensor | None = None


def hide(valid: Tensor | None, like: Tensor) -> Tensor | None:
    """0 for keys that may be seen, else very low."""
    return None if valid is None else torch.where(valid, 0.0, HIDDEN).to(like.dtype)


def no_rows(like: Tensor) -> Rows:
    """No keys and values for rows (P, ·, E)."""
    return Rows(like[:, :0], like[:, :0])


def mix_tiles(
    q: Tensor, keys: Keys, heads: int, tiles: Sequence[Tile], bias: Tensor | None = None
) -> Tensor:
    """One softmax for each query (P, N, E) over all keys that its tile sees, (B, N, D).

    The tiles have every query once. bias: added to the scores of a tile's last range, whose first
    key is its column 0, by queries from the tile's ``offset`` on.
    A query whose keys are all hidden gets a mean of some.
    """
    return _apply(
        q, *keys.own, *keys.summaries, keys.hidden, keys.hidden_summaries, bias, heads, tiles
    )


def mix_seen_plainly(q: Tensor, k: Tensor, v: Tensor, heads: int, seen: Tensor) -> Tensor:
    """Softmax attention (P, N, E) → (B, N, D) by definition, with 0 for a query that sees nothing.

    seen: which keys, broadcastable to (B, H, N, M). N·M in time and memory.
    """
    q, k, v = (t.view(-1, heads, *t.shape[1:]) for t in (q, k, v))
    scores = (q @ k.mT / math.sqrt(q.shape[3])).masked_fill(~seen, HIDDEN)
    weights = scores.softmax(-1) * seen
    return (weights @ v).transpose(1, 2).flatten(2)


def exponentials(scores: Tensor, some_hidden: bool) -> Tensor:
    """exp(x), x ≤ 0, written over x; with hidden ones 0 where it is less than e⁻⁸⁰.

    The vector library is some forty times slower where its result underflows.
    """
    if not some_hidden:
        return scores.exp_()
    return torch.threshold_(scores.clamp_min_(-80).exp_(), 2e-35, 0)


class _MixTiles(Function):
    """Tile after tile; the backward pass computes the weights again."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        k_summary: Tensor,
        v_summary: Tensor,
        hidden: Tensor | None,
        hidden_summaries: Tensor | None,
        bias: Tensor | None,
        heads: int,
        tiles: Sequence[Tile],
    ) -> Tensor:
        P, N, E = q.shape
        out = q.new_empty(P // heads, N, heads * E)
        rows = split_heads(out, heads)
        most, mass = q.new_empty(2, P, N, 1).unbind()
        work = _Work(q, (k, k_summary), (v, v_summary), heads, tiles)
        hiding = _Hiding(hidden, hidden_summaries, bias)
        for part in work.parts():
            scores = work.scores(part, work.keys(part), hiding)
            torch.amax(scores, dim=-1, keepdim=True, out=part.queries(most))
            weights = work.weights(part, scores, most, hiding)
            total = torch.sum(weights, dim=-1, keepdim=True, out=part.queries(mass))
            mixed = torch.bmm(weights, work.values(part))
            part.write(mixed.div_(total), rows)
            del mixed  # before there is the next
        ctx.save_for_backward(
            q, k, v, k_summary, v_summary, hidden, hidden_summaries, bias, most, mass, out
        )
        ctx.how = heads, tiles
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, k_summary, v_summary, *hidden, most, mass, out = ctx.saved_tensors
        heads, tiles = ctx.how
        scale = 1 / math.sqrt(q.shape[2])
        # weights come without their division by the mass: the gradient is divided, once
        g = q.new_empty(q.shape)
        by_head = g.unflatten(0, (-1, heads))
        grad, out = (split_heads(t.contiguous(), heads) for t in (grad, out))
        torch.div(grad, mass.unflatten(0, (-1, heads)), out=by_head)
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        correction = torch.linalg.vecdot(by_head, out).view(mass.shape)
        d_q = torch.empty_like(q)
        d_keys = torch.zeros_like(k), torch.zeros_like(k_summary)
        d_values = torch.zeros_like(v), torch.zeros_like(v_summary)
        work = _Work(q, (k, k_summary), (v, v_summary), heads, tiles, both=True)
        hiding = _Hiding(*hidden)
        for part in work.parts():
            seen, g_part, d = work.keys(part), part.queries(g), work.tile(part, 1)
            weights = work.weights(part, work.scores(part, seen, hiding), most, hiding)
            torch.bmm(g_part, work.values(part).mT, out=d)
            d.sub_(part.queries(correction)).mul_(weights)
            part.add(d_values, torch.bmm(weights.mT, g_part, out=work.rows(part, 1)), 1)
            torch.mul(torch.bmm(d, seen), scale, out=part.queries(d_q))
            part.add(d_keys, torch.bmm(d.mT, part.queries(q), out=work.rows(part, 0)), scale)
        return d_q, d_keys[0], d_values[0], d_keys[1], d_values[1], *(None,) * 5


_apply: Callable[..., Tensor] = _MixTiles.apply


class _Part(NamedTuple):
    """A tile for the rows [first, last) of P, which are those of a group."""

    tile: Tile
    group: Group
    first: int
    last: int

    @property
    def size(self) -> int:
        """p."""
        return self.last - self.first

    def queries(self, x: Tensor) -> Tensor:
        """The part's of (P, N, ·), a view."""
        return x[self.first : self.last, self.tile.start : self.tile.stop]

    def write(self, x: Tensor, into: Tensor) -> None:
        """Put (p, C, E) in its place in (B, H, N, E)."""
        place = into[self.group.batch, self.group.heads, self.tile.start : self.tile.stop]
        place.copy_(x.view(place.shape))

    def seen(self, sources: tuple[Tensor, Tensor]) -> list[Tensor]:
        """What the part sees of (P, M, E) and of summaries (P, S, E), views by range."""
        return [
            sources[r.summary][self.first : self.last, r.first : r.last] for r in self.tile.keys
        ]

    def add(self, totals: tuple[Tensor, Tensor], d: Tensor, alpha: float) -> None:
        """Add α·(p, K, E) to what the part sees."""
        start = 0
        for into in self.seen(totals):
            stop = start + into.shape[1]
            into.add_(d[:, start:stop], alpha=alpha)
            start = stop


class _Hiding(NamedTuple):
    """What is added to scores: see ``Keys`` and ``mix_tiles``."""

    keys: Tensor | None
    summaries: Tensor | None
    bias: Tensor | None

    @property
    def some(self) -> bool:
        """Whether there is anything."""
        return self.keys is not None or self.bias is not None

    def of_tile(self, tile: Tile) -> Tensor | None:
        """(C, K): the bias of the last range, 0 for the others."""
        if self.bias is None:
            return None
        last = tile.keys[-1].last - tile.keys[-1].first
        own = self.bias[tile.offset : tile.offset + tile.queries, :last]
        return functional.pad(own, (tile.seen - last, 0)) if tile.seen > last else own

    def of_keys(self, part: _Part) -> Tensor | None:
        """(b, 1, 1, K) for the b sequences of the part."""
        if self.keys is None:
            return None
        both = self.keys, self.summaries if self.summaries is not None else self.keys[:, :0]
        rows = [both[r.summary][part.group.batch, r.first : r.last] for r in part.tile.keys]
        return torch.cat(rows, dim=1)[:, None, None]


class _Work:
    """The parts, one after the other in the same memory: for scores, and for rows of keys.

    both: there is twice as much, for gradients.
    """

    def __init__(
        self,
        q: Tensor,
        keys: tuple[Tensor, Tensor],
        values: tuple[Tensor, Tensor],
        heads: int,
        tiles: Sequence[Tile],
        both: bool = False,
    ) -> None:
        self.q, self.sources, self.heads, self.tiles = q, (keys, values), heads, tiles
        scores, rows = memory(q.shape[0] // heads, heads, tiles, both)
        self._scores = q.new_empty(1 + both, scores)
        self._rows = q.new_empty(1 + both, rows * q.shape[2])

    def parts(self) -> Iterator[_Part]:
        """All of them."""
        H = self.heads
        for tile in self.tiles:
            for group in groups(self.q.shape[0] // H, H, tile.queries * tile.seen):
                b, h = group
                first = b.start * H + h.start
                yield _Part(tile, group, first, (b.stop - 1) * H + h.stop)

    def tile(self, part: _Part, which: int) -> Tensor:
        """Memory for scores (p, C, K)."""
        shape = part.size, part.tile.queries, part.tile.seen
        return self._scores[which, : math.prod(shape)].view(shape)

    def rows(self, part: _Part, which: int) -> Tensor:
        """Memory for keys or values (p, K, E)."""
        shape = part.size, part.tile.seen, self.q.shape[2]
        return self._rows[which, : math.prod(shape)].view(shape)

    def keys(self, part: _Part) -> Tensor:
        """The keys that the part sees, (p, K, E), until its other rows are wanted."""
        return self._gather(part, 0, 0)

    def values(self, part: _Part) -> Tensor:
        """Their values; in the keys' place if there is one place only."""
        return self._gather(part, 1, self._rows.shape[0] - 1)

    def _gather(self, part: _Part, source: int, place: int) -> Tensor:
        rows = part.seen(self.sources[source])
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1, out=self.rows(part, place))

    def scores(self, part: _Part, seen: Tensor, hiding: _Hiding) -> Tensor:
        """(p, C, K)."""
        q, scores = part.queries(self.q), self.tile(part, 0)
        bias, hidden = hiding.of_tile(part.tile), hiding.of_keys(part)
        scale = 1 / math.sqrt(q.shape[2])
        start, beta = (scores, 0) if bias is None else (bias, 1)
        torch.baddbmm(start, q, seen.mT, beta=beta, alpha=scale, out=scores)
        if hidden is not None:
            scores.view(hidden.shape[0], -1, *scores.shape[1:]).add_(hidden)
        return scores

    @staticmethod
    def weights(part: _Part, scores: Tensor, most: Tensor, hiding: _Hiding) -> Tensor:
        """exp(scores - most), (p, C, K), written over the scores; most (P, N, 1)."""
        return exponentials(scores.sub_(part.queries(most)), hiding.some)
