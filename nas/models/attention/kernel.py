"""What kernel mechanisms share: φ(Q)(φ(K)ᵀV), normalised, causal in chunks.

Both forms take span after span through all that happens to it, features included, so that it
stays in the cache; their own backward passes compute what lies between again.

Shapes: B batch, N sequence, H heads, P = B·H, D width, E head width, M features, L span, C chunk,
n chunks of a span.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas.models.attention.base import Attention, split_heads, widen
from nas.models.positions import Rotation, rotate
from search_spaces.attention.base import AttentionSpec
from search_spaces.attention.kernel import spans

S = TypeVar("S", bound=AttentionSpec)


class FeatureMap(Protocol):
    """Positive features φ of queries and keys, made for a span of L positions at a time.

    number: M.
    """

    number: int

    def memory(self, qkv: Tensor) -> Tensor:
        """Where the features of (B, N, 3, H, E) are to be; that may be there."""

    def places(self, memory: Tensor, c: slice) -> tuple[Tensor, Tensor]:
        """A span's features of queries and of keys in that memory, views (B, H, L, M)."""

    def make(self, qkv: Tensor, memory: Tensor, c: slice) -> None:
        """Write a span's features there."""

    def through_queries(self, d: Tensor, y: Tensor, into: Tensor) -> None:
        """From the gradient of features y, both (P, L, M), that of queries (B, H, L, E)."""

    def through_keys(self, d: Tensor, y: Tensor, x: Tensor, into: Tensor) -> None:
        """The same for keys; x (B, H, L, E) are those if they have not been overwritten."""


class Sums(NamedTuple):
    """What a causal mechanism keeps of its past: Σ φ(k)vᵀ (P, M, E) and Σ φ(k) (P, 1, M)."""

    products: Tensor
    features: Tensor


class KernelAttention(Attention[S]):
    """A mechanism given by its features φ(q), φ(k) and what keeps its denominator from 0."""

    epsilon: ClassVar[float]

    @property
    @abstractmethod
    def features(self) -> int:
        """M."""

    @abstractmethod
    def _map(self, dtype: torch.dtype) -> FeatureMap:
        """φ for tensors of that type."""

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        if self.causal:
            return self._mix_causal(x, self._first_state(x.shape[0]), mask, rotation)[0]
        qkv = self._project_together(x, rotation)
        with _autocast_off(x):
            mixed = mix_all(qkv, mask, self._map(qkv.dtype), self.epsilon)
        return mixed.to(x.dtype)

    def _first_state(self, batch_size: int) -> Sums:
        P, M = batch_size * self.heads, self.features
        return Sums(self._sums(P, M, self.head_width), self._sums(P, 1, M))

    def _continue(self, x: Tensor, state: Sums, rotation: Rotation | None) -> tuple[Tensor, Sums]:
        return self._mix_causal(x, state, None, rotation)

    def _mix_causal(
        self, x: Tensor, state: Sums, mask: Tensor | None, rotation: Rotation | None
    ) -> tuple[Tensor, Sums]:
        qkv = self._project_together(x, rotation)
        with _autocast_off(x):
            mixed, state = mix_causal(qkv, mask, state, self._map(qkv.dtype), self.epsilon)
        return mixed.to(x.dtype), state

    def _project_together(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """Queries, keys and values (B, N, 3, H, E), in at least single precision."""
        B, N, _ = x.shape
        H, E = self.heads, self.head_width
        qkv = self.qkv(x).view(B, N, 3 * H, E)
        if rotation is not None:  # in place and one after the other, for the sake of memory
            for rows in (slice(0, H), slice(H, 2 * H)):
                qkv[:, :, rows] = rotate(qkv[:, :, rows], rotation)
        return widen(qkv.view(B, N, 3, H, E))

    def _sums(self, *shape: int) -> Tensor:
        return widen(self._zeros(*shape))


def _autocast_off(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def mix_all(qkv: Tensor, mask: Tensor | None, phi: FeatureMap, epsilon: float) -> Tensor:
    """Every query sees every key: (B, N, 3, H, E) → (B, N, D).

    qkv: queries, keys and values, which the features may be written over.
    mask: (B, N), True = valid; the features of other keys are 0.
    """
    return _apply_all(qkv, mask, phi, epsilon)


def mix_causal(
    qkv: Tensor, mask: Tensor | None, past: Sums, phi: FeatureMap, epsilon: float
) -> tuple[Tensor, Sums]:
    """A query sees its own key and earlier ones, those of the past included.

    Shapes as in ``mix_all``; returns the sums after the last position too.
    """
    mixed, products, features = _apply_causal(qkv, mask, *past, phi, epsilon)
    return mixed, Sums(products, features)


def mix_plainly(q: Tensor, k: Tensor, v: Tensor, epsilon: float, causal: bool) -> Tensor:
    """The mixing of features (P, N, M) and values as it is defined, (P, N, E): N² in all."""
    weights = q @ k.transpose(1, 2)
    if causal:
        weights = weights.tril()
    return (weights @ v) / (weights.sum(-1, keepdim=True) + epsilon)


class _MixAll(Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, mask: Tensor | None, phi: FeatureMap, epsilon: float
    ) -> Tensor:
        B, N, _, H, E = qkv.shape
        work = _Work(qkv, phi)
        products = qkv.new_zeros(B * H, phi.number, E)
        features = qkv.new_zeros(B * H, 1, phi.number)
        for span in work.spans:
            work.make(span, mask)
            k, v = work.keys(span)
            products.baddbmm_(k.mT, v)
            features.add_(k.sum(dim=1, keepdim=True))
            del k, v  # before there are the next
        out, weight = qkv.new_empty(B, N, H * E), qkv.new_empty(B, H, N, 1)
        rows = split_heads(out, H)
        for span in work.spans:
            q = work.queries(span)
            seen = torch.bmm(q, features.mT).add_(epsilon)
            _divide(torch.bmm(q, products), seen, weight[:, :, span.c], rows[:, :, span.c])
            del q, seen
        ctx.save_for_backward(qkv, work.memory, products, features, weight, out)
        ctx.phi = phi
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, memory, products, features, weight, out = ctx.saved_tensors
        work, division = _Work(qkv, ctx.phi, memory), _Division(grad, weight, out)
        d_qkv = torch.empty_like(qkv)
        d_q, d_k, d_v = _apart(d_qkv)
        d_products, d_features = torch.zeros_like(products), torch.zeros_like(features)
        for span in work.spans:
            q, (g, h) = work.queries(span), division.through(span)
            d_products.baddbmm_(q.mT, g)
            d_features.baddbmm_(h.mT, q)
            d = torch.bmm(g, products.mT).addcmul_(h, features)
            ctx.phi.through_queries(d, q, d_q[:, :, span.c])
        for span in work.spans:
            k, v = work.keys(span)
            d, to = torch.baddbmm(d_features, v, d_products.mT), d_v[:, :, span.c]
            to.copy_(torch.bmm(k, d_products).view(to.shape))
            ctx.phi.through_keys(d, k, work.k[:, :, span.c], d_k[:, :, span.c])
        return d_qkv, None, None, None


class _MixCausal(Function):
    """Keys of the own chunk come directly, earlier ones by the sums that stand before the chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        mask: Tensor | None,
        products: Tensor,
        features: Tensor,
        phi: FeatureMap,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, N, _, H, E = qkv.shape
        work = _Work(qkv, phi)
        out, weight = qkv.new_empty(B, N, H * E), qkv.new_empty(B, H, N, 1)
        rows, past = split_heads(out, H), (products, features)
        for span in work.spans:
            work.make(span, mask)
            q, k, v = map(span.chunks, (work.queries(span), *work.keys(span)))
            before, products = span.sums(products, torch.bmm(k.mT, v))
            before_features, features = span.sums(features, k.sum(dim=1, keepdim=True))
            direct = torch.bmm(q, k.mT).tril_()
            seen = torch.bmm(q, before_features.mT)
            seen.add_(direct.sum(dim=-1, keepdim=True)).add_(epsilon)
            mixed = torch.bmm(q, before).baddbmm_(direct, v)
            _divide(mixed, seen, weight[:, :, span.c], rows[:, :, span.c])
            del q, k, v, direct, seen, mixed, before, before_features  # before there are the next
        ctx.save_for_backward(qkv, work.memory, *past, weight, out)
        ctx.phi = phi
        return out, products, features

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, d_products: Tensor, d_features: Tensor
    ) -> tuple[Tensor | None, ...]:
        qkv, memory, products, features, weight, out = ctx.saved_tensors
        work, division = _Work(qkv, ctx.phi, memory), _Division(grad, weight, out)
        d_qkv = torch.empty_like(qkv)
        d_q, d_k, d_v = _apart(d_qkv)
        known = []
        for span in work.spans:
            known_rows = work.queries(span), *work.keys(span), *division.through(span)
            q, k, v, g, h = map(span.chunks, known_rows)
            known.append((span, q, k, v, g, h))
            before, products = span.sums(products, torch.bmm(k.mT, v))
            before_features, features = span.sums(features, k.sum(dim=1, keepdim=True))
            d_direct = torch.baddbmm(h, g, v.mT).tril_()
            d = torch.bmm(d_direct, k).baddbmm_(g, before.mT).addcmul_(h, before_features)
            ctx.phi.through_queries(span.whole(d), span.whole(q), d_q[:, :, span.c])
        # a key is seen by later chunks through the sums: their gradient runs backwards
        while known:
            span, q, k, v, g, h = known.pop()
            after, d_products = span.sums(d_products, torch.bmm(q.mT, g), backwards=True)
            after_features, d_features = span.sums(d_features, torch.bmm(h.mT, q), backwards=True)
            direct, to = torch.bmm(q, k.mT).tril_(), d_v[:, :, span.c]
            to.copy_(torch.bmm(k, after).baddbmm_(direct.mT, g).view(to.shape))
            d_direct = torch.baddbmm(h, g, v.mT).tril_()
            d = torch.baddbmm(after_features, v, after.mT).baddbmm_(d_direct.mT, q)
            d, k = span.whole(d), span.whole(k)
            ctx.phi.through_keys(d, k, work.k[:, :, span.c], d_k[:, :, span.c])
        return d_qkv, None, d_products, d_features, None, None


_apply_all: Callable[..., Tensor] = _MixAll.apply
_apply_causal: Callable[..., tuple[Tensor, Tensor, Tensor]] = _MixCausal.apply


class _Span(NamedTuple):
    """L positions of P rows that are handled together, n chunks of C."""

    c: slice
    number: int
    rows: int

    def chunks(self, x: Tensor) -> Tensor:
        """(P, L, ·) as (P·n, C, ·)."""
        return x.reshape(self.rows * self.number, -1, x.shape[-1])

    def whole(self, x: Tensor) -> Tensor:
        """(P·n, C, ·) as (P, L, ·)."""
        return x.view(self.rows, -1, x.shape[-1])

    def sums(self, first: Tensor, own: Tensor, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """What stands before each chunk (P·n, ·, ·), and after the last: ``first`` (P, ·, ·) and
        the ``own`` (P·n, ·, ·) of the chunks that it has behind it."""
        if self.number == 1:
            return first, first + own
        own = own.view(self.rows, self.number, *own.shape[1:])
        before = torch.empty_like(own)
        order = range(self.number)[::-1] if backwards else range(self.number)
        before[:, order[0]] = first
        for i, j in pairwise(order):
            torch.add(before[:, i], own[:, i], out=before[:, j])
        return before.flatten(0, 1), before[:, order[-1]] + own[:, order[-1]]


class _Work:
    """Queries, keys, values of (B, N, 3, H, E), and the features of the former, span by span."""

    def __init__(self, qkv: Tensor, phi: FeatureMap, memory: Tensor | None = None) -> None:
        self.qkv, self.phi = qkv, phi
        _, self.k, self.v = _apart(qkv)
        self.memory = phi.memory(qkv) if memory is None else memory
        rows = qkv.shape[0] * qkv.shape[3]
        self.spans = [
            _Span(slice(start, stop), number, rows)
            for start, stop, number in spans(qkv.shape[1], rows * phi.number)
        ]

    def make(self, span: _Span, mask: Tensor | None) -> None:
        """A span's features, 0 for padded keys."""
        self.phi.make(self.qkv, self.memory, span.c)
        if mask is not None:
            self.phi.places(self.memory, span.c)[1].mul_(mask[:, None, span.c, None])

    def queries(self, span: _Span) -> Tensor:
        """The features (P, L, M) of queries."""
        return self.phi.places(self.memory, span.c)[0].flatten(0, 1)

    def keys(self, span: _Span) -> tuple[Tensor, Tensor]:
        """The features (P, L, M) of keys, and values (P, L, E)."""
        k = self.phi.places(self.memory, span.c)[1].flatten(0, 1)
        return k, self.v[:, :, span.c].flatten(0, 1)


class _Division:
    """The way back through numerator / denominator (B, N, D), span by span."""

    def __init__(self, grad: Tensor, weight: Tensor, out: Tensor) -> None:
        heads = weight.shape[1]
        self.grad, self.out = split_heads(grad.contiguous(), heads), split_heads(out, heads)
        self.weight = weight

    def through(self, span: _Span) -> tuple[Tensor, Tensor]:
        """Gradients of numerator (P, L, E) and denominator (P, L, 1)."""
        grad, out, weight = (t[:, :, span.c] for t in (self.grad, self.out, self.weight))
        g = torch.div(grad, weight, out=grad.new_empty(grad.shape))
        h = torch.linalg.vecdot(g, out).neg_().unsqueeze(-1)
        return g.flatten(0, 1), h.flatten(0, 1)


def _divide(mixed: Tensor, seen: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write the denominators to ``weight`` (B, H, L, 1), the quotients to ``out`` (B, H, L, E)."""
    weight.copy_(seen.view(weight.shape))
    torch.div(mixed.view(out.shape), weight, out=out)


def _apart(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3, H, E) as three views (B, H, N, E)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    return q, k, v
