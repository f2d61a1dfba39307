"""Gated linear attention: a recurrence with a gate for each channel, chunk after chunk.

Shapes: B batch, N sequence, H heads, P = B·H, D width, E head width, C chunk.
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

from nas.models.attention.base import Attention, AttentionSlot, split_heads, widen
from nas.models.positions import Rotation
from search_spaces.attention.gated_linear import CHUNK, GatedLinearAttention

TEMPERATURE = 16.0  # α = sigmoid(z)^(1/16): slow to forget unless told to
STEEPEST = -1.25
"""The least log α; sigmoid(z)^(1/16) comes there at z = -20. It bounds what a chunk can forget, and
with it the numbers that stand for it: see ``_MixGated``."""
MIDDLE = -STEEPEST * CHUNK / 2
ALL_KEPT = 1e4  # log sigmoid of it is 0
EPSILON = 1e-5


class GatedLinear(Attention[GatedLinearAttention], spec=GatedLinearAttention):
    """S_t = diag(α_t)S_{t-1} + k_tᵀv_t, o_t = q_t S_t for each head (equation 3); then o is normed
    and multiplied by a gate swish(xW) (section 4.4).

    Encoders add the same recurrence over the reversed sequence; each of the two sees the own
    position. A padded position neither forgets nor adds.
    """

    def __init__(self, spec: GatedLinearAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        D, R = slot.d_model, spec.gate_rank
        self.swish = nn.Linear(D, D, bias=False)
        self.forget_in = nn.Linear(D, R, bias=False)
        self.forget_out = nn.Linear(R, D)
        self.norm_weight = nn.Parameter(torch.ones(self.head_width))
        for linear in (self.swish, self.forget_in, self.forget_out):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))
        nn.init.zeros_(self.forget_out.bias)

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        return self._mix_from(x, self._first_state(x.shape[0]), mask, rotation)[0]

    def _first_state(self, batch_size: int) -> Tensor:
        """S (P, E, E), zeros."""
        return widen(self._zeros(batch_size * self.heads, self.head_width, self.head_width))

    def _continue(
        self, x: Tensor, state: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor]:
        return self._mix_from(x, state, None, rotation)

    def _mix_from(
        self, x: Tensor, state: Tensor, mask: Tensor | None, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor]:
        mixed, after = self._recur(x, state, mask, rotation)
        swish = self.swish(x)
        with torch.autocast(x.device.type, enabled=False):
            per_head = *mixed.shape[:2], self.heads, self.head_width
            weight = self.norm_weight.to(mixed.dtype)
            gated = norm_and_gate(mixed.view(per_head), weight, widen(swish))
        return gated.to(x.dtype), after

    def _recur(
        self, x: Tensor, state: Tensor, mask: Tensor | None, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor]:
        """The recurrence, (B, N, D) in at least fp32, and the state after it."""
        qk, v = self._project_densely(x, rotation)
        z = split_heads(self.forget_out(self.forget_in(x)), self.heads).flatten(0, 1)
        with torch.autocast(x.device.type, enabled=False):  # half precision spoils long sums
            (q, k), v, z = widen(qk).unbind(), widen(v), widen(z)
            if mask is not None:
                shown = mask.repeat_interleave(self.heads, dim=0).unsqueeze(-1)
                k, z = k * shown, z.masked_fill(~shown, ALL_KEPT)
            mixed, after = mix_gated(q, k, v, z, state, self.heads)
            if not self.causal:
                mixed = mixed + mix_gated(q, k, v, z, state, self.heads, backwards=True)[0]
            return mixed, after


def mix_gated(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    z: Tensor,
    state: Tensor,
    heads: int,
    backwards: bool = False,
) -> tuple[Tensor, Tensor]:
    """The recurrence over (P, N, E) from a state (P, E, E): outputs (B, N, D), the state after.

    z: what α is made of.  backwards: from the last position to the first.
    """
    return _apply_gated(q, k, v, z, state, heads, backwards)


def mix_gated_plainly(
    q: Tensor, k: Tensor, v: Tensor, z: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """``mix_gated`` as it is defined, position after position, (P, N, E)."""
    rows, forget = [], log_alpha(z)
    for t in range(q.shape[1]):
        state = forget[:, t].exp().unsqueeze(2) * state + k[:, t].unsqueeze(2) * v[:, t, None]
        rows.append((q[:, t, None] @ state).squeeze(1))
    return torch.stack(rows, dim=1), state


def log_alpha(z: Tensor) -> Tensor:
    """How much a channel forgets at a position, from STEEPEST to 0."""
    return (functional.logsigmoid(z) / TEMPERATURE).clamp_min(STEEPEST)


class _MixGated(Function):
    """With b the sum of log α since the chunk began, what query i keeps of key j in each channel,
    exp(b_i - b_j), is the product of the factors in q̂ = q·exp(b + m) and k̂ = k·exp(-b - m). The
    constant m is half of what a chunk can forget: no factor is beyond exp(±m), and none depends on
    what comes later.

    The backward pass computes the chunks again instead of keeping them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        z: Tensor,
        state: Tensor,
        heads: int,
        backwards: bool,
    ) -> tuple[Tensor, Tensor]:
        P, N, E = q.shape
        out = v.new_empty(P // heads, N, heads * E)
        rows = split_heads(out, heads)
        first = state
        for c in _chunks(N, backwards):
            state = _Chunk(q, k, v, z, c, backwards).go_on(state, rows[:, :, c])
        ctx.save_for_backward(q, k, v, z, first)
        ctx.heads, ctx.backwards = heads, backwards
        return out, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, z, state = ctx.saved_tensors
        grad = split_heads(grad.contiguous(), ctx.heads).reshape(q.shape)
        chunks = _chunks(q.shape[1], ctx.backwards)
        states = [state]
        for c in chunks:
            states.append(_Chunk(q, k, v, z, c, ctx.backwards).after(states[-1]))
        dq, dk, dv, dz = (torch.empty_like(t) for t in (q, k, v, z))
        for c in reversed(chunks):
            part = _Chunk(q, k, v, z, c, ctx.backwards)
            after, before = states.pop(), states[-1]
            g = part.turned(grad[:, c])
            # the new state is e·(S·exp(-m) + k̂ᵀv) with e = exp(b_C + m)
            d_sum = d_state * part.end
            d_last = torch.linalg.vecdot(d_state, after)
            d_weights = torch.bmm(g, part.v.transpose(1, 2)).tril_()
            d_q = torch.bmm(d_weights, part.k)
            d_q.baddbmm_(g, before.transpose(1, 2), alpha=math.exp(-MIDDLE)).mul_(part.grown)
            d_k = torch.bmm(d_weights.transpose(1, 2), part.q)
            d_k.baddbmm_(part.v, d_sum.transpose(1, 2)).mul_(part.shrunk)
            d_v = torch.bmm(part.weights().transpose(1, 2), g).baddbmm_(part.k, d_sum)
            d_b = part.turned(q[:, c]) * d_q - part.turned(k[:, c]) * d_k
            d_b[:, -1] += d_last
            dq[:, c], dk[:, c], dv[:, c] = part.turned(d_q), part.turned(d_k), part.turned(d_v)
            # the sum since the chunk began gives its gradient to all before
            d_forget = part.turned(d_b.flip(1).cumsum(dim=1).flip(1))
            # the gradient of log α is 0 where it is bounded
            slope = torch.where(log_alpha(z[:, c]) > STEEPEST, torch.sigmoid(-z[:, c]), 0.0)
            torch.mul(d_forget.div_(TEMPERATURE), slope, out=dz[:, c])
            d_state = torch.baddbmm(d_sum, part.q.transpose(1, 2), g).mul_(math.exp(-MIDDLE))
        return dq, dk, dv, dz, d_state, None, None


_apply_gated: Callable[..., tuple[Tensor, Tensor]] = _MixGated.apply


class _Chunk:
    """Some positions, in the order of the recurrence."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, z: Tensor, c: slice, backwards: bool
    ) -> None:
        self.backwards = backwards
        b = self.turned(log_alpha(z[:, c])).cumsum(dim=1)
        # the constant is a factor, for b + m would have the rounding of m
        self.grown = b.exp().mul_(math.exp(MIDDLE))  # (P, C, E)
        self.shrunk = b.neg_().exp_().mul_(math.exp(-MIDDLE))
        self.q = self.turned(q[:, c]) * self.grown
        self.k = self.turned(k[:, c]) * self.shrunk
        self.v = self.turned(v[:, c])
        self.end = self.grown[:, -1].unsqueeze(2)  # (P, E, 1)

    def turned(self, x: Tensor) -> Tensor:
        """Positions in the recurrence's order, or back in the sequence's."""
        return x.flip(1) if self.backwards else x

    def weights(self) -> Tensor:
        """Of the chunk's own keys, (P, C, C)."""
        return torch.bmm(self.q, self.k.transpose(1, 2)).tril_()

    def go_on(self, state: Tensor, out: Tensor) -> Tensor:
        """Write what the queries see of their chunk and of the state before it; the state after."""
        past = torch.bmm(self.q, state).mul_(math.exp(-MIDDLE))
        mixed = torch.baddbmm(past, self.weights(), self.v)
        out.copy_(self.turned(mixed).view(out.shape))
        return self.after(state)

    def after(self, state: Tensor) -> Tensor:
        """The state after the chunk."""
        sums = torch.baddbmm(state, self.k.transpose(1, 2), self.v, beta=math.exp(-MIDDLE))
        return sums.mul_(self.end)


def _chunks(length: int, backwards: bool) -> list[slice]:
    chunks = [slice(i, min(i + CHUNK, length)) for i in range(0, length, CHUNK)]
    return chunks[::-1] if backwards else chunks


def norm_and_gate(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
    """Each head over its root mean square, times the weight (E) and swish(gate).

    x: (B, N, H, E); gate and result: (B, N, D).
    """
    return _apply_norm_and_gate(x, weight, gate)


def norm_and_gate_plainly(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
    """``norm_and_gate`` by PyTorch's own functions, which keep more."""
    normed = functional.rms_norm(x, weight.shape, weight, EPSILON)
    return normed.flatten(2) * functional.silu(gate)


class _NormAndGate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
        scale = _over_norm(x)
        ctx.save_for_backward(x, weight, gate, scale)
        y = (x * scale).mul_(weight).flatten(2)
        return y.mul_(functional.silu(gate))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, gate, scale = ctx.saved_tensors
        normed, sigmoid = x * scale, torch.sigmoid(gate)
        d_gate = (normed * weight).flatten(2).mul_(grad).mul_(sigmoid)
        d_gate.mul_((1 - sigmoid).mul_(gate).add_(1))
        d = (grad * gate).mul_(sigmoid).view(x.shape)
        d_weight = (d * normed).sum(dim=(0, 1, 2))
        d.mul_(weight)
        along = torch.linalg.vecdot(d, normed).unsqueeze(-1).div_(x.shape[-1])
        return d.addcmul_(normed, along, value=-1).mul_(scale), d_weight, d_gate


_apply_norm_and_gate: Callable[..., Tensor] = _NormAndGate.apply


def _over_norm(x: Tensor) -> Tensor:
    """1 over the root mean square of the last dimension."""
    square = torch.linalg.vecdot(x, x).unsqueeze(-1)
    inverse: Tensor = square.div_(x.shape[-1]).add_(EPSILON).rsqrt_()
    return inverse
