"""Nyströmformer: softmax attention through landmarks.

Shapes: B batch, N sequence, H heads, D width, E head width, M landmarks,
K kernel, C block.
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

from nas.models.attention.base import Attention, AttentionSlot, split_heads
from nas.models.positions import Rotation
from search_spaces.attention.nystromformer import BLOCK, NystromformerAttention, windows

HIDDEN = -1e30  # finite, so that a landmark that sees nothing has no 0 / 0


class Nystromformer(Attention[NystromformerAttention], spec=NystromformerAttention):
    """Softmax(QK̃ᵀ)·pinv(softmax(Q̃K̃ᵀ))·softmax(Q̃Kᵀ)V + a convolution of V (equations 13 and 14).

    Landmarks are the means of M segments of a row's own valid positions, as equal as can be; a row
    of fewer positions has as many landmarks. So neither padding nor other rows change them.
    """

    def __init__(self, spec: NystromformerAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot)
        self.kernel: nn.Parameter | None = None
        if spec.kernel:
            self.kernel = nn.Parameter(torch.empty(slot.heads, spec.kernel))
            nn.init.normal_(self.kernel, std=1 / math.sqrt(spec.kernel))

    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        q, k, v = self._project(x, rotation)
        M = min(self.spec.landmarks, x.shape[1])
        if mask is None:
            q_mean, k_mean, held = segment_means(q, M), segment_means(k, M), None
        else:
            segments, held = segments_of(mask, M)
            q_mean, k_mean = (means_by_segment(t, segments, held) for t in (q, k))
        means = self._seen_by_landmarks(q_mean, k_mean, k, v, mask, held)
        shown = None if held is None else held[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(q, k_mean, means, attn_mask=shown)
        if self.kernel is None:
            return mixed.transpose(1, 2).flatten(2)
        values = v if mask is None else v * mask[:, None, :, None]
        return add_convolution(mixed, values, self.kernel.to(v.dtype))

    def _seen_by_landmarks(
        self,
        q_mean: Tensor,
        k_mean: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        held: Tensor | None,
    ) -> Tensor:
        """pinv(softmax(Q̃K̃ᵀ))·softmax(Q̃Kᵀ)V, (B, H, M, E); ``held`` (B, M): landmarks there are."""
        seen = None if mask is None else mask[:, None, None, :]
        means = functional.scaled_dot_product_attention(q_mean, k, v, attn_mask=seen)
        with torch.autocast(k.device.type, enabled=False):  # an inverse magnifies rounding
            inverse = pseudo_inverse(self._between(q_mean, k_mean, held), self.spec.iterations)
            wide = inverse.view(*q_mean.shape[:3], -1) @ means.to(inverse.dtype)
        return wide.to(v.dtype)

    def _between(self, q_mean: Tensor, k_mean: Tensor, held: Tensor | None) -> Tensor:
        """Softmax(Q̃K̃ᵀ), (B·H, M, M), in at least fp32."""
        wide = torch.promote_types(q_mean.dtype, torch.float32)
        scores = q_mean.to(wide) @ k_mean.to(wide).transpose(2, 3) / math.sqrt(self.head_width)
        if held is None:
            return scores.softmax(dim=-1).flatten(0, 1)
        weights = scores.masked_fill(~held[:, None, None, :], HIDDEN).softmax(dim=-1)
        # a landmark that is not there has an empty row and column, and so has the inverse
        there = (held.unsqueeze(1) & held.unsqueeze(2)).unsqueeze(1)
        return (weights * there).flatten(0, 1)


def add_convolution(mixed: Tensor, v: Tensor, kernel: Tensor) -> Tensor:
    """``mixed`` and each head's kernel (H, K) along the sequence of values, both (B, H, N, E).

    Beyond the ends are zeros. Returns (B, N, D), the heads side by side.
    """
    return _apply_convolution(mixed, v, kernel)


def add_convolution_plainly(mixed: Tensor, v: Tensor, kernel: Tensor) -> Tensor:
    """``add_convolution`` by PyTorch's own convolution, which is slower here."""
    H, K = kernel.shape
    moved = functional.conv2d(v, kernel.view(H, 1, K, 1), padding=(K // 2, 0), groups=H)
    return (mixed + moved).transpose(1, 2).flatten(2)


class _AddConvolution(Function):
    """Block after block, as a product with the band of the kernel's shifted copies."""

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, v: Tensor, kernel: Tensor) -> Tensor:
        B, H, N, E = v.shape
        out = v.new_empty(B, N, H * E)
        rows, band = split_heads(out, H), _band(kernel, B)
        for block in windows(N, kernel.shape[1]):
            own = mixed[:, :, block.own].flatten(0, 1)
            near = v[:, :, block.near].flatten(0, 1)
            total = torch.baddbmm(own, band[:, block.rows, block.columns], near)
            rows[:, :, block.own] = total.view(B, H, -1, E)
        ctx.save_for_backward(v, kernel)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v, kernel = ctx.saved_tensors
        B, H, N, _ = v.shape
        grad = split_heads(grad.contiguous(), H)
        dv, band = torch.zeros_like(v, memory_format=torch.contiguous_format), _band(kernel, B)
        d_band = torch.zeros_like(band)
        for block in windows(N, kernel.shape[1]):
            g, near = grad[:, :, block.own].flatten(0, 1), v[:, :, block.near].flatten(0, 1)
            part = band[:, block.rows, block.columns]
            dv[:, :, block.near] += torch.bmm(part.transpose(1, 2), g).view(B, H, *near.shape[1:])
            d_band[:, block.rows, block.columns] += torch.bmm(g, near.transpose(1, 2))
        d_band = d_band.view(B, H, *band.shape[1:]).sum(dim=0)
        return grad, dv, _shifted(d_band, kernel.shape[1]).sum(dim=1)


_apply_convolution: Callable[..., Tensor] = _AddConvolution.apply


def _band(kernel: Tensor, batch: int) -> Tensor:
    """Row i holds the kernel from column i on: (H, K) → (B·H, C, C + K - 1)."""
    H, K = kernel.shape
    band = kernel.new_zeros(H, BLOCK, BLOCK + K - 1)
    _shifted(band, K).copy_(kernel.unsqueeze(1).expand(H, BLOCK, K))
    return band.repeat(batch, 1, 1)


def _shifted(band: Tensor, size: int) -> Tensor:
    """The places (H, C, K) of the kernel's copies in a band (H, C, C + K - 1), a view."""
    H, C, W = band.shape
    return band.as_strided((H, C, size), (C * W, W + 1, 1))


def segment_means(x: Tensor, segments: int) -> Tensor:
    """Means of M segments of N positions, the longer ones first: (B, H, N, E) → (B, H, M, E)."""
    B, H, N, E = x.shape
    size, longer = divmod(N, segments)
    cut = longer * (size + 1)
    rest: Tensor = x[:, :, cut:].view(B, H, segments - longer, size, E).mean(dim=3)
    if not longer:
        return rest
    first = x[:, :, :cut].view(B, H, longer, size + 1, E).mean(dim=3)
    return torch.cat((first, rest), dim=2)


def segments_of(mask: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """The segment (B, N) of each valid position, M if it is padded, and which exist (B, M).

    As in ``segment_means``, of a row's valid positions alone.
    """
    count = mask.sum(dim=1, keepdim=True)
    exist = count.clamp_max(segments)
    size = count // exist.clamp_min(1)
    longer = count - size * exist
    rank = mask.cumsum(dim=1) - 1
    cut = longer * (size + 1)
    late = longer + (rank - cut) // size.clamp_min(1)
    segment = torch.where(rank < cut, rank // (size + 1), late)
    held = torch.arange(segments, device=mask.device) < exist
    return segment.masked_fill(~mask, segments), held


def means_by_segment(x: Tensor, segment: Tensor, held: Tensor) -> Tensor:
    """Means of the positions (B, H, N, E) of each segment (B, N), (B, H, M, E); 0 if it is empty.

    held: (B, M), the segments that exist.
    """
    B, H, N, E = x.shape
    M = held.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    bins = segment + (M + 1) * torch.arange(B, device=x.device).unsqueeze(1)
    rows = x.transpose(1, 2).reshape(B * N, H * E).to(wide)
    sums = rows.new_zeros(B * (M + 1), H * E).index_add(0, bins.flatten(), rows)
    counts = torch.bincount(bins.flatten(), minlength=B * (M + 1)).clamp_min(1).unsqueeze(1)
    means = (sums / counts).view(B, M + 1, H, E)[:, :M]
    return means.transpose(1, 2).to(x.dtype)


def pseudo_inverse(a: Tensor, iterations: int) -> Tensor:
    """The pseudo-inverse of matrices (P, M, M) with rows that sum to 1, or are 0, by iteration.

    Equation 15. Each matrix begins from its own transpose over its own largest column sum (the
    largest row sum is 1): no other matrix of the batch has a say.
    """
    return _invert(a, iterations)


def pseudo_inverse_plainly(a: Tensor, iterations: int) -> Tensor:
    """``pseudo_inverse`` as it is defined."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    z = a.transpose(1, 2) / a.sum(dim=1, keepdim=True).amax(dim=2, keepdim=True).clamp_min(1)
    for _ in range(iterations):
        y = a @ z
        z = z @ (13 * eye - y @ (15 * eye - y @ (7 * eye - y))) / 4
    return z


class _Invert(Function):
    """Keeps the iterates alone; what lies between them is computed again."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, iterations: int) -> Tensor:
        largest, column = a.sum(dim=1).max(dim=1)
        largest = largest.clamp_min_(1).view(-1, 1, 1)  # below 1 in a matrix of zeros alone
        iterates = [a.transpose(1, 2) / largest]
        for _ in range(iterations):
            z = torch.bmm(iterates[-1], _last_factor(torch.bmm(a, iterates[-1]))).div_(4)
            if ctx.needs_input_grad[0]:
                iterates.append(z)
            else:
                iterates[0] = z
        ctx.save_for_backward(a, largest, column, *iterates[:-1])
        return iterates[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, largest, column, *iterates = ctx.saved_tensors
        da = torch.zeros_like(a)
        at = a.transpose(1, 2)
        for z in reversed(iterates):
            y = torch.bmm(a, z)
            inner = _minus(7, y)
            middle = _minus(15, torch.bmm(y, inner))
            last = _minus(13, torch.bmm(y, middle))
            yt, zt = y.transpose(1, 2), z.transpose(1, 2)
            grad = grad / 4
            d_last = torch.bmm(zt, grad)
            d_middle = torch.bmm(yt, d_last).neg_()
            dy = torch.bmm(yt, d_middle)  # of 7 - y, which is -y
            dy = torch.baddbmm(dy, d_middle, inner.transpose(1, 2), beta=1, alpha=-1)
            dy.baddbmm_(d_last, middle.transpose(1, 2), alpha=-1)
            da.baddbmm_(dy, zt)
            grad = torch.bmm(grad, last.transpose(1, 2)).baddbmm_(at, dy)
        first = iterates[0]
        da.add_(grad.transpose(1, 2) / largest)
        shrink = (grad * first).sum(dim=(1, 2), keepdim=True) / largest
        index = column.view(-1, 1, 1).expand(-1, a.shape[1], 1)
        da.scatter_add_(2, index, -shrink.expand_as(index))
        return da, None


_invert: Callable[..., Tensor] = _Invert.apply


def _last_factor(y: Tensor) -> Tensor:
    """13 - Y(15 - Y(7 - Y)); a number stands for its multiple of the identity."""
    factor = _minus(7, y)
    for number in (15, 13):
        factor = _minus(number, torch.bmm(y, factor), in_place=True)
    return factor


def _minus(number: float, x: Tensor, in_place: bool = False) -> Tensor:
    """Number·I - x."""
    x = x.neg_() if in_place else x.neg()
    x.diagonal(dim1=1, dim2=2).add_(number)
    return x
