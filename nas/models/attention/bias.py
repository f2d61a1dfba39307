"""Biases on the scores of queries and keys, by their distance.

A bias is a row of numbers for each head, one for every distance j - i of a key j from a query i;
whoever adds it cuts what a tile of queries and keys needs out of the row.

Shapes: H heads, W distances.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from search_spaces.attention.base import RELATIVE_BUCKETS, Position

MAX_DISTANCE = 128  # distances from here on share the last bucket
TABLE_STD = 0.02


class DistanceBias(nn.Module):
    """What is added to the scores, after their division by √E."""

    @abstractmethod
    def forward(self, first: int, last: int) -> Tensor:
        """The biases (H, W) of the distances ``first`` … ``last``, in order."""


class Alibi(DistanceBias):
    """-m·|j - i|, the slope m of each head fixed (Press et al. 2021, arXiv:2108.12409)."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(alibi_slopes(heads)), persistent=False)

    def forward(self, first: int, last: int) -> Tensor:
        """The biases (H, W) of the distances ``first`` … ``last``, in order."""
        distance = torch.arange(first, last + 1, device=self.slopes.device, dtype=torch.float64)
        return torch.outer(self.slopes.double(), -distance.abs()).to(self.slopes.dtype)


class Relative(DistanceBias):
    """Learned for each head and bucket of distances (Raffel et al. 2019, arXiv:1910.10683)."""

    def __init__(self, heads: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.table = nn.Parameter(torch.empty(heads, RELATIVE_BUCKETS))
        nn.init.normal_(self.table, std=TABLE_STD)

    def forward(self, first: int, last: int) -> Tensor:
        """The biases (H, W) of the distances ``first`` … ``last``, in order."""
        distance = torch.arange(first, last + 1, device=self.table.device)
        return self.table.index_select(1, relative_buckets(distance, self.causal))


def position_bias(position: Position, heads: int, causal: bool) -> DistanceBias | None:
    """The bias that these positions are, None for those that are none."""
    if position == "alibi":
        return Alibi(heads)
    if position == "relative":
        return Relative(heads, causal)
    return None


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8h/H) for h = 1 … H; where H is no power of two, those of the power below come first,
    and every other one of the power above follows."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4 * h / power) for h in range(1, 2 * (heads - power), 2)]
    return slopes + between


def relative_buckets(distance: Tensor, causal: bool) -> Tensor:
    """The bucket of each distance j - i: one each for near ones, wider and wider beyond.

    Causal queries see no key on their right; otherwise each side has half of the buckets.
    """
    buckets = RELATIVE_BUCKETS if causal else RELATIVE_BUCKETS // 2
    away = (-distance).clamp_min(0) if causal else distance.abs()
    near = buckets // 2
    # logarithms to base 2 are exact where buckets begin at a power of two
    steps = (away.clamp_min(near).double() / near).log2() / math.log2(MAX_DISTANCE / near)
    far = (near + (steps * (buckets - near)).floor().long()).clamp_max(buckets - 1)
    bucket = torch.where(away < near, away, far)
    return bucket if causal else bucket + buckets * (distance > 0)
