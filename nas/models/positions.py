"""What tells a model where a token stands.

Shapes: B batch, N sequence, H heads, D width, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from search_spaces.attention.base import Position
from search_spaces.errors import InvalidInput, Problem

BASE = 10_000.0
WAVE_HEIGHT = 0.25  # sinusoids of height 1 would drown fresh embeddings


class Rotation(NamedTuple):
    """The rotary angles of N consecutive positions as unit complex numbers (N, E / 2)."""

    unit: Tensor


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (2i, 2i + 1) of ``x`` (B, N, H, E) by its position's angle.

    Su et al. 2021, arXiv:2104.09864, equation 34; as complex numbers it is one product.
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    turned = torch.view_as_complex(wide.view(*x.shape[:-1], -1, 2)) * rotation.unit.unsqueeze(1)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def rotate_plainly(x: Tensor, rotation: Rotation) -> Tensor:
    """``rotate`` in real numbers."""
    cos, sin = rotation.unit.real.unsqueeze(1), rotation.unit.imag.unsqueeze(1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Positions(nn.Module):
    """Added positions (sinusoidal, learned) and the angles of rotary ones.

    Tables are computed once for ``max_length`` positions, and again when a longer sequence comes.
    """

    def __init__(self, kind: Position, width: int, max_length: int) -> None:
        super().__init__()
        self.kind = kind
        self.max_length = max_length
        self.table = nn.Embedding(max_length, width) if kind == "learned" else None
        self._known: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add the positions start … start + N - 1 to embeddings (B, N, D).

        Raises:
            InvalidInput: learned positions end at ``max_length``.
        """
        N, D = x.shape[1:]
        if self.table is not None:
            if start + N > self.max_length:
                message = f"{start + N} tokens, but positions were learned for {self.max_length}"
                raise InvalidInput([Problem("", message)])
            return x + self.table.weight[start : start + N]
        if self.kind == "sinusoidal":
            return x + self._rows(_waves, D, start, N, x.device, x.dtype)
        return x

    def rotation(self, head_width: int, start: int, length: int, like: Tensor) -> Rotation | None:
        """Rotary angles of N positions for heads of that width; None for other kinds."""
        if self.kind != "rotary":
            return None
        dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        return Rotation(self._rows(_units, head_width, start, length, like.device, dtype))

    def _rows(
        self,
        compute: Callable[[int, int, torch.device], Tensor],
        width: int,
        start: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        if torch.compiler.is_exporting():  # a graph has its own constants
            return compute(start + length, width, device).to(dtype)[start:]
        key = (width, device, dtype)
        known = self._known.get(key)
        if known is None or known.shape[0] < start + length:
            # a table made in inference mode could not serve training afterwards
            with torch.inference_mode(False):
                known = compute(max(self.max_length, start + length), width, device).to(dtype)
            self._known[key] = known
        return known[start : start + length]


def waves_by_distance(first: int, last: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids (W, D) of height 1 of the distances ``first`` down to ``last``: sines, cosines.

    Dai et al. 2019, arXiv:1901.02860, section 3.3.
    """
    reach = max(first, -last)
    if torch.compiler.is_exporting():  # a graph has its own constants
        table = _distances(reach, width, like.device, like.dtype)
    else:
        # tables of a few lengths serve all layers
        reach = 1 << max(reach, 1).bit_length()
        table = _known_distances(reach, width, like.device, like.dtype)
    return table[reach - first : reach - last + 1]


@lru_cache(maxsize=8)
def _known_distances(reach: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    # a table made in inference mode could not serve training afterwards
    with torch.inference_mode(False):
        return _distances(reach, width, device, dtype)


def _distances(reach: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The waves of the distances from ``reach`` down to -``reach``."""
    angle = _angles(reach + 1, (width + 1) // 2, device)
    sine, cosine = angle.sin(), angle.cos()
    sine = torch.cat((sine.flip(0), -sine[1:]))
    cosine = torch.cat((cosine.flip(0), cosine[1:]))
    return torch.cat((sine, cosine), dim=1)[:, :width].to(dtype)


def _waves(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (N, D): sines, then cosines."""
    angle = _angles(length, (width + 1) // 2, device)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)[:, :width] * WAVE_HEIGHT


def _units(length: int, width: int, device: torch.device) -> Tensor:
    """Unit complex numbers (N, E / 2) of the rotary angles."""
    angle = _angles(length, width // 2, device)
    return torch.polar(torch.ones_like(angle), angle)


def _angles(length: int, pairs: int, device: torch.device) -> Tensor:
    """Position times frequency, (N, pairs), in fp64: fp32 would lose phase far from the start."""
    exponent = torch.arange(pairs, device=device, dtype=torch.float64) / pairs
    position = torch.arange(length, device=device, dtype=torch.float64)
    return torch.outer(position, BASE**-exponent)
