"""The convolution branches of the Evolved Transformer (So et al. 2019, figure 3).

As in the other blocks, matrices and convolutions have no biases.

Shapes: B batch, N sequence, D width, C channels, I wide branch, J narrow branch (D / 2), k taps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import Unsupported
from nas.models.attention.base import key_mask
from nas.models.feedforward.base import FeedForward, FeedForwardSlot
from nas.models.norms import build_norm
from search_spaces.feedforward.convolution import ENTRY_TAPS, ConvolutionFeedForward


class Past(NamedTuple):
    """The last inputs of the first convolutions (B, D, k - 1) and of the last one (B, I, k - 1)."""

    entry: Tensor
    last: Tensor


class Separable(nn.Module):
    """k taps for each channel, then a matrix across channels."""

    def __init__(self, channels: int, out: int, taps: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, taps, groups=channels, bias=False)
        self.pointwise = nn.Linear(channels, out, bias=False)
        nn.init.normal_(self.depthwise.weight, std=1 / math.sqrt(taps))
        nn.init.normal_(self.pointwise.weight, std=1 / math.sqrt(channels))

    def forward(self, padded: Tensor) -> Tensor:
        """(B, C, N + k - 1) → (B, N, out): a window begins at each of the first N positions."""
        mixed = self.depthwise(padded).transpose(1, 2)
        # one product for each sequence: the linear layer would copy, for it wants channels last
        weight = self.pointwise.weight.t().expand(padded.shape[0], -1, -1)
        return torch.bmm(mixed, weight)

    def plainly(self, padded: Tensor) -> Tensor:
        """``forward`` as it is defined: one tap after the other."""
        taps = self.depthwise.weight[:, 0]  # (C, k)
        N = padded.shape[2] - taps.shape[1] + 1
        windows = [padded[:, :, i : i + N] * taps[:, i : i + 1] for i in range(taps.shape[1])]
        y: Tensor = self.pointwise(torch.stack(windows).sum(dim=0).transpose(1, 2))
        return y


class DecoderBranches(nn.Module):
    """Every convolution ends at the position that it writes."""

    def __init__(self, spec: ConvolutionFeedForward, d_model: int) -> None:
        super().__init__()
        inner, last = spec.inner(d_model, causal=True), spec.last_taps(causal=True)
        self.lead = spec.kernel - last  # the narrow branch looks that much less far back
        self.wide = Separable(d_model, inner, spec.kernel)
        self.narrow = Separable(d_model, spec.narrow(d_model), last)
        self.norm = build_norm("layer_norm", inner)
        self.last = Separable(inner, d_model, last)
        self.widths = (d_model, spec.kernel - 1), (inner, last - 1)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past) -> tuple[Tensor, Past]:
        """(B, N, D) → (B, N, D) after the past, and the past after them."""
        padded, entry = _append(past.entry, _without_padding(x, mask))
        wide = self.wide(padded).relu_()
        narrow = self.narrow(padded[:, :, self.lead :])
        del padded  # before there is a sum: the most memory is taken here
        x = _add_narrow(wide, narrow)
        del wide, narrow
        x = _without_padding(self.norm(x), mask)
        padded, last = _append(past.last, x)
        del x
        y: Tensor = self.last(padded)
        return y, Past(entry, last)

    def first_past(self, batch_size: int) -> Past:
        """Zeros: what stands before the first token."""
        weight = self.last.pointwise.weight
        entry, last = (weight.new_zeros(batch_size, *shape) for shape in self.widths)
        return Past(entry, last)


class EncoderBranches(nn.Module):
    """Every convolution is centred at the position that it writes."""

    def __init__(self, spec: ConvolutionFeedForward, d_model: int) -> None:
        super().__init__()
        inner, narrow = spec.inner(d_model, causal=False), spec.narrow(d_model)
        taps = spec.last_taps(causal=False)
        self.sides = (taps - 1) // 2, taps // 2
        self.rest = d_model - narrow
        self.wide = nn.Linear(d_model, inner, bias=False)
        self.narrow = nn.Conv1d(d_model, narrow, ENTRY_TAPS, padding=ENTRY_TAPS // 2, bias=False)
        self.norm = build_norm("layer_norm", inner)
        self.last = Separable(inner, narrow, taps)
        nn.init.normal_(self.wide.weight, std=1 / math.sqrt(d_model))
        nn.init.normal_(self.narrow.weight, std=1 / math.sqrt(ENTRY_TAPS * d_model))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, N, D) → (B, N, D), zero but for the first D / 2 channels."""
        x = _without_padding(x, mask)
        wide = self.wide(x).relu_()
        narrow = self.narrow(x.transpose(1, 2)).relu_().transpose(1, 2)
        x = _add_narrow(wide, narrow)
        del wide, narrow
        x = _without_padding(self.norm(x), mask)
        padded = functional.pad(x.transpose(1, 2), self.sides)
        del x
        return functional.pad(self.last(padded), (0, self.rest))


class Convolution(FeedForward[ConvolutionFeedForward], spec=ConvolutionFeedForward):
    """The decoder's branches in causal slots, the encoder's elsewhere."""

    def __init__(self, spec: ConvolutionFeedForward, slot: FeedForwardSlot) -> None:
        super().__init__(spec, slot)
        self.branches: DecoderBranches | EncoderBranches
        if slot.causal:
            self.branches = DecoderBranches(spec, slot.d_model)
        else:
            self.branches = EncoderBranches(spec, slot.d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) → (B, N, D); padding (mask False) counts as what stands beyond the ends: 0."""
        if isinstance(self.branches, EncoderBranches):
            y: Tensor = self.branches(x, mask)
            return y
        seen = key_mask(mask, causal=True)
        y, _ = self.branches(x, seen, self.branches.first_past(x.shape[0]))
        return y

    def last_projections(self) -> tuple[nn.Linear, ...]:
        """The matrix of the last convolution."""
        return (self.branches.last.pointwise,)

    def init_state(self, batch_size: int) -> Past:
        """Zeros.

        Raises:
            Unsupported: it was built for an encoder.
        """
        return self._decoder().first_past(batch_size)

    def extend(self, x: Tensor, state: Past) -> tuple[Tensor, Past]:
        """Go on with N more tokens (B, N, D) after the last inputs of each convolution."""
        y, state = self._decoder()(x, None, state)
        return y, state

    def _decoder(self) -> DecoderBranches:
        if isinstance(self.branches, EncoderBranches):
            raise Unsupported("a convolution block built for an encoder does not decode")
        return self.branches


def _without_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros where there is no token, (B, N, C)."""
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)


def _append(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The past (B, C, k - 1) with x (B, N, C) after it, and what is then the past."""
    joined = torch.cat((past, x.transpose(1, 2)), dim=2)
    # a copy: a view would keep all positions alive
    return joined, joined[:, :, joined.shape[2] - past.shape[2] :].clone()


def _add_narrow(wide: Tensor, narrow: Tensor) -> Tensor:
    """Add (B, N, J) to the first channels of (B, N, I)."""
    J = narrow.shape[2]
    return torch.cat((wide[:, :, :J] + narrow, wide[:, :, J:]), dim=2)
