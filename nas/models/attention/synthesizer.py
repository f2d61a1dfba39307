"""Synthesizer: attention weights without queries and keys.

Shapes: B batch, N sequence, H heads, D width, E head width, L longest sequence, R rank, C block,
G groups of samples that have weights of their own: B, or 1 where all have the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.models.attention.base import Attention, AttentionSlot, split_heads
from nas.models.positions import Rotation
from search_spaces.attention.synthesizer import BLOCK, SynthesizerAttention
from search_spaces.errors import InvalidInput, Problem

HIDDEN = -1e30  # finite, so that a query that sees nothing has no 0 / 0


class Synthesizer(Attention[SynthesizerAttention], spec=SynthesizerAttention):
    """Softmax(A)V with A = W₂·relu(W₁x + b) for each head, or learned as a table or product.

    A has a row and a column for each of the L positions; shorter sequences use the first ones.
    """

    def __init__(self, spec: SynthesizerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        D, H, L = slot.d_model, slot.heads, slot.max_length
        self.dense = spec.variant == "dense"
        # no queries and keys: values alone, and before them the hidden layer of the dense variant
        self.qkv = nn.Linear(D, 2 * D if self.dense else D, bias=False)
        nn.init.normal_(self.qkv.weight, std=1 / math.sqrt(D))
        if self.dense:
            self.hidden_bias = nn.Parameter(torch.zeros(D))
            self.scores = nn.Parameter(torch.empty(H, L, self.head_width))
            nn.init.normal_(self.scores, std=math.sqrt(2 / self.head_width))
        elif spec.variant == "random":
            self.scores = nn.Parameter(torch.randn(H, L, L))
        else:
            self.rows = nn.Parameter(torch.empty(H, L, spec.rank))
            self.columns = nn.Parameter(torch.empty(H, L, spec.rank))
            for factor in (self.rows, self.columns):  # the product is of order 1
                nn.init.normal_(factor, std=spec.rank**-0.25)

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        N = x.shape[1]
        if self.max_length < N:
            message = f"{N} tokens, but attention weights were made for {self.max_length}"
            raise InvalidInput([Problem("", message)])
        if self.dense:
            return self._mix_dense(x, mask)
        v = self.qkv(x)
        if self.spec.variant == "random":
            return mix_learned(self.scores, None, v, mask, self.causal)
        return mix_learned(self.rows, self.columns, v, mask, self.causal)

    def _mix_dense(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """A layer from E hidden values to L scores is a product with L learned keys: what is fused
        for queries and keys serves it too, and no N² weights are kept."""
        B, N = x.shape[:2]
        w_hidden, w_v = self.qkv.weight.chunk(2)
        hidden = functional.linear(x, w_hidden, self.hidden_bias).relu()
        q, v = (split_heads(t, self.heads) for t in (hidden, functional.linear(x, w_v)))
        keys = self.scores[:, :N].to(q.dtype).expand(B, -1, -1, -1)
        seen = None
        if mask is not None:
            seen = mask[:, None, None, :]
            if self.causal:
                # the own position is always seen: a query with no key at all would be 0 / 0
                seen = seen & torch.ones(N, N, dtype=torch.bool, device=x.device).tril()
                seen = seen | torch.eye(N, dtype=torch.bool, device=x.device)
        mixed = functional.scaled_dot_product_attention(
            q, keys, v, attn_mask=seen, is_causal=self.causal and mask is None, scale=1.0
        )
        return mixed.transpose(1, 2).flatten(2)


def mix_learned(
    rows: Tensor, columns: Tensor | None, v: Tensor, valid: Tensor | None, causal: bool
) -> Tensor:
    """Softmax(A)V of values (B, N, D), heads side by side, with the same learned A for all samples.

    A: the first N rows and columns of ``rows`` (H, L, L), or of ``rows``·``columns``ᵀ, each
    (H, L, R).  valid: (B, N), True = the value may be seen.
    """
    v = v.to(torch.promote_types(v.dtype, rows.dtype))
    with torch.autocast(v.device.type, enabled=False):
        return _apply_learned(rows, columns, v, valid, causal)


def mix_learned_plainly(
    rows: Tensor, columns: Tensor | None, v: Tensor, valid: Tensor | None, causal: bool
) -> Tensor:
    """``mix_learned`` as it is defined."""
    N = v.shape[1]
    scores = rows[:, :N, :N] if columns is None else rows[:, :N] @ columns[:, :N].transpose(1, 2)
    seen = torch.ones(N, N, dtype=torch.bool)
    if causal:
        seen = seen.tril()
    if valid is not None:
        seen = seen & valid[:, None, None, :]
    weights = scores.masked_fill(~seen, HIDDEN).softmax(dim=-1)
    return (weights @ split_heads(v, rows.shape[0])).transpose(1, 2).flatten(2)


class _MixLearned(Function):
    """Block after block of queries. The backward pass computes the weights again."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor | None,
        v: Tensor,
        valid: Tensor | None,
        causal: bool,
    ) -> Tensor:
        blocks = _Blocks(rows, columns, v.shape, valid, causal)
        v = blocks.arranged(v)
        out = v.new_empty(blocks.shape)
        for c in blocks:
            blocks.write(torch.bmm(blocks.weights(c), v[:, : blocks.seen(c)]), out[:, c])
        ctx.save_for_backward(rows, columns, v, valid, out)
        ctx.causal = causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, v, valid, out = ctx.saved_tensors
        blocks = _Blocks(rows, columns, out.shape, valid, ctx.causal)
        dv, d_rows = torch.zeros_like(v), torch.zeros_like(rows)
        d_columns = None if columns is None else torch.zeros_like(columns)
        # Σ_j p_j dp_j = Σ_e o_e do_e: the softmax's own correction, without its weights
        grad, out = blocks.arranged(grad.contiguous()), blocks.arranged(out)
        correction = torch.linalg.vecdot(grad, out).unsqueeze(-1)
        for c in blocks:
            weights, last = blocks.weights(c), blocks.seen(c)
            dv[:, :last].baddbmm_(weights.transpose(1, 2), grad[:, c])
            d = torch.baddbmm(correction[:, c], grad[:, c], v[:, :last].transpose(1, 2), beta=-1)
            d = d.mul_(weights).view(blocks.groups, -1, *d.shape[1:]).sum(dim=0)  # of all samples
            if columns is None or d_columns is None:
                d_rows[:, c, :last] = d
            else:
                d_rows[:, c] = torch.bmm(d, columns[:, :last])
                d_columns[:, :last].baddbmm_(d.transpose(1, 2), rows[:, c])
        dx = grad.new_empty(blocks.shape)
        blocks.write(dv, dx)
        return d_rows, d_columns, dx, None, None


_apply_learned: Callable[..., Tensor] = _MixLearned.apply


class _Blocks:
    """The blocks of queries over learned scores; values are (G·H, N, B/G·E).

    Without padding, one product with the values of all samples side by side does for all.
    """

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor | None,
        shape: torch.Size,
        valid: Tensor | None,
        causal: bool,
    ) -> None:
        self.rows, self.columns, self.valid = rows, columns, valid
        self.shape, self.length, self.causal = shape, shape[1], causal
        self.heads = rows.shape[0]
        self.groups = 1 if valid is None else valid.shape[0]

    def __iter__(self) -> Iterator[slice]:
        """Slices of queries."""
        return (slice(i, min(i + BLOCK, self.length)) for i in range(0, self.length, BLOCK))

    def seen(self, queries: slice) -> int:
        """Number of leading keys that the block sees."""
        return int(queries.stop) if self.causal else self.length

    def weights(self, queries: slice) -> Tensor:
        """Softmax weights (G·H, C, keys)."""
        last = self.seen(queries)
        if self.columns is None:
            scores = self.rows[:, queries, :last]
        else:
            scores = torch.bmm(self.rows[:, queries], self.columns[:, :last].transpose(1, 2))
        if self.valid is not None:
            shown = self.valid[:, None, None, :last]
            scores = torch.where(shown, scores, HIDDEN).flatten(0, 1)
        if self.causal:
            C = scores.shape[1]
            if self.columns is None and self.valid is None:
                scores = scores.clone()  # it is the table itself
            # twice: a query that sees padding alone still sees no later key
            scores[:, :, queries.start :] += scores.new_full((C, C), 2 * HIDDEN).triu_(1)
        return scores.softmax(dim=-1)

    def arranged(self, x: Tensor) -> Tensor:
        """(B, N, D) → (G·H, N, B/G·E)."""
        return self._per_head(x).flatten(3).flatten(0, 1).contiguous()

    def write(self, x: Tensor, out: Tensor) -> None:
        """Write (G·H, C, B/G·E) to ``out`` (B, C, D)."""
        heads = self._per_head(out)
        heads.copy_(x.view(heads.shape))

    def _per_head(self, x: Tensor) -> Tensor:
        """(B, C, D) → (G, H, C, B/G, E), a view."""
        B, C, _ = x.shape
        return x.view(self.groups, B // self.groups, C, self.heads, -1).permute(0, 3, 2, 1, 4)
