"""What kernel mechanisms share: φ(Q)(φ(K)ᵀV), normalised, causal in chunks.

Both forms bring their own backward pass: it computes the chunks again instead of keeping them.

Shapes: B batch, N sequence, H heads, P = B·H, E head width, M features, C chunk.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas.models.attention.base import Attention, split_heads
from nas.models.positions import Rotation
from search_spaces.attention.base import AttentionSpec
from search_spaces.attention.kernel import CHUNK

S = TypeVar("S", bound=AttentionSpec)


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
    def _features(self, qk: Tensor) -> tuple[Tensor, Tensor]:
        """φ(q) and φ(k), positive (P, N, M), of (2, P, N, E), which may be overwritten."""

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        if self.causal:
            return self._mix_causal(x, self._first_state(x.shape[0]), mask, rotation)[0]
        q, k, v = self._project_features(x, mask, rotation)
        with _autocast_off(x):
            mixed = mix_all(q, k, v, self.heads, self.epsilon)
        return mixed.to(x.dtype)

    def _first_state(self, batch_size: int) -> Sums:
        P, M = batch_size * self.heads, self.features
        return Sums(self._sums(P, M, self.head_width), self._sums(P, 1, M))

    def _continue(self, x: Tensor, state: Sums, rotation: Rotation | None) -> tuple[Tensor, Sums]:
        return self._mix_causal(x, state, None, rotation)

    def _mix_causal(
        self, x: Tensor, state: Sums, mask: Tensor | None, rotation: Rotation | None
    ) -> tuple[Tensor, Sums]:
        q, k, v = self._project_features(x, mask, rotation)
        with _autocast_off(x):
            mixed, state = mix_causal(q, k, v, state, self.heads, self.epsilon)
        return mixed.to(x.dtype), state

    def _project_features(
        self, x: Tensor, mask: Tensor | None, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """φ(q), φ(k), 0 where padded, and v, in at least fp32: half precision spoils long sums."""
        qk, v = self._project_densely(x, rotation)
        with _autocast_off(x):
            q, k = self._features(_widen(qk))
            if mask is not None:
                k = k * mask.repeat_interleave(self.heads, dim=0).unsqueeze(-1)
            return q, k, _widen(v)

    def _sums(self, *shape: int) -> Tensor:
        return _widen(self._zeros(*shape))


def _autocast_off(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mix_all(q: Tensor, k: Tensor, v: Tensor, heads: int, epsilon: float) -> Tensor:
    """Every query sees every key: features (P, N, M), values (P, N, E) → (B, N, D)."""
    return _apply_all(q, k, v, heads, epsilon)


def mix_causal(
    q: Tensor, k: Tensor, v: Tensor, past: Sums, heads: int, epsilon: float
) -> tuple[Tensor, Sums]:
    """A query sees its own key and earlier ones, those of the past included.

    Shapes as in ``mix_all``; returns the sums after the last position too.
    """
    mixed, products, features = _apply_causal(q, k, v, *past, heads, epsilon)
    return mixed, Sums(products, features)


def mix_causal_plainly(q: Tensor, k: Tensor, v: Tensor, epsilon: float) -> Tensor:
    """``mix_causal`` without a past as it is defined, (P, N, E): N² in time and memory."""
    weights = (q @ k.transpose(1, 2)).tril()
    return (weights @ v) / (weights.sum(-1, keepdim=True) + epsilon)


class _MixAll(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, epsilon: float) -> Tensor:
        products = torch.bmm(k.transpose(1, 2), v)
        features = k.sum(dim=1, keepdim=True)
        weight = torch.bmm(q, features.transpose(1, 2)).add_(epsilon)
        out = _empty_output(v, heads)
        per_head = out.shape[0], heads, *v.shape[1:2], -1
        torch.div(
            torch.bmm(q, products).view(per_head),
            weight.view(per_head),
            out=split_heads(out, heads),
        )
        ctx.heads = heads
        ctx.save_for_backward(q, k, v, products, features, weight, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, products, features, weight, out = ctx.saved_tensors
        g, h = _through_division(grad, weight, out, ctx.heads)
        dq = torch.bmm(g, products.transpose(1, 2)).addcmul_(h, features)
        d_products = torch.bmm(q.transpose(1, 2), g)
        d_features = torch.bmm(h.transpose(1, 2), q)
        dk = torch.baddbmm(d_features, v, d_products.transpose(1, 2))
        return dq, dk, torch.bmm(k, d_products), None, None


class _MixCausal(Function):
    """Chunk after chunk: its own keys directly, earlier ones by their sums."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        products: Tensor,
        features: Tensor,
        heads: int,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        P, N, _ = q.shape
        out = _empty_output(v, heads)
        rows = split_heads(out, heads)
        weight = q.new_empty(P, N, 1)
        past = products, features
        for c in _chunks(N):
            direct = torch.bmm(q[:, c], k[:, c].transpose(1, 2)).tril_()
            mixed = torch.baddbmm(torch.bmm(q[:, c], products), direct, v[:, c])
            seen = torch.bmm(q[:, c], features.transpose(1, 2))
            seen.add_(direct.sum(dim=-1, keepdim=True)).add_(epsilon)
            rows[:, :, c] = mixed.div_(seen).view(rows.shape[0], heads, *mixed.shape[1:])
            weight[:, c] = seen
            products = torch.baddbmm(products, k[:, c].transpose(1, 2), v[:, c])
            features = features + k[:, c].sum(dim=1, keepdim=True)
        ctx.heads = heads
        ctx.save_for_backward(q, k, v, *past, weight, out)
        return out, products, features

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, d_products: Tensor, d_features: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, products, features, weight, out = ctx.saved_tensors
        g, h = _through_division(grad, weight, out, ctx.heads)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        products, features = products.clone(), features.clone()
        for c in _chunks(q.shape[1]):
            d_direct = torch.baddbmm(h[:, c], g[:, c], v[:, c].transpose(1, 2)).tril_()
            d = torch.bmm(d_direct, k[:, c]).baddbmm_(g[:, c], products.transpose(1, 2))
            dq[:, c] = d.addcmul_(h[:, c], features)
            products.baddbmm_(k[:, c].transpose(1, 2), v[:, c])
            features.add_(k[:, c].sum(dim=1, keepdim=True))
        # a key is seen by later chunks through the sums: their gradient runs backwards
        d_products, d_features = d_products.clone(), d_features.clone()
        for c in reversed(_chunks(q.shape[1])):
            d_direct = torch.baddbmm(h[:, c], g[:, c], v[:, c].transpose(1, 2)).tril_()
            d = torch.baddbmm(d_features, d_direct.transpose(1, 2), q[:, c])
            dk[:, c] = d.baddbmm_(v[:, c], d_products.transpose(1, 2))
            direct = torch.bmm(q[:, c], k[:, c].transpose(1, 2)).tril_()
            d = torch.bmm(direct.transpose(1, 2), g[:, c])
            dv[:, c] = d.baddbmm_(k[:, c], d_products)
            d_products.baddbmm_(q[:, c].transpose(1, 2), g[:, c])
            d_features.baddbmm_(h[:, c].transpose(1, 2), q[:, c])
        return dq, dk, dv, d_products, d_features, None, None


_apply_all: Callable[..., Tensor] = _MixAll.apply
_apply_causal: Callable[..., tuple[Tensor, Tensor, Tensor]] = _MixCausal.apply


def _chunks(length: int) -> list[slice]:
    return [slice(i, min(i + CHUNK, length)) for i in range(0, length, CHUNK)]


def _empty_output(v: Tensor, heads: int) -> Tensor:
    """(B, N, D) for values (P, N, E)."""
    P, N, E = v.shape
    return v.new_empty(P // heads, N, heads * E)


def _through_division(
    grad: Tensor, weight: Tensor, out: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """Gradients of numerator (P, N, E) and denominator (P, N, 1) of the quotient (B, N, D)."""
    g, y = split_heads(grad.contiguous(), heads), split_heads(out, heads)
    g = g / weight.view(*g.shape[:3], 1)
    h = torch.linalg.vecdot(g, y).neg_()
    return g.flatten(0, 1), h.reshape(weight.shape)
