"""What the tests of sparse patterns share: the pattern by its definition, through full attention.

Shapes: B batch, N sequence, H heads, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nas.models import build_attention
from nas.models.attention.base import Attention
from nas.models.positions import Positions, Rotation

B, H, E = 2, 4, 8
ATOL = {torch.float32: 2e-6, torch.float64: 1e-10}


def module(
    spec: dict[str, Any], N: int, causal: bool, dtype: torch.dtype = torch.float64, seed: int = 3
) -> Attention[Any]:
    torch.manual_seed(seed)
    return build_attention(spec, d_model=H * E, heads=H, max_length=N, causal=causal).to(dtype)


def inputs(N: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(N)
    return torch.randn(B, N, H * E, generator=generator, dtype=torch.float64).to(dtype)


def rotation(attention: Attention[Any], N: int) -> Rotation | None:
    return Positions("rotary", H * E, N).rotation(E, 0, N, attention.qkv.weight)


def holes(N: int) -> Tensor:
    """A mask with a hole in the first sequence and an end to the second."""
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[0, N // 3 : N // 2] = False
    mask[1, 2 * N // 3 + 1 :] = False
    return mask


def by_definition(
    attention: Attention[Any], x: Tensor, seen: Tensor, turn: Rotation | None = None
) -> Tensor:
    """Full attention with a mask (…, N, N) of what is seen, and the module's own weights."""
    q, k, v = attention._project(x, turn)
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    y: Tensor = attention.out(mixed.transpose(1, 2).flatten(2))
    return y


def equals_definition(
    attention: Attention[Any], seen: Tensor, dtype: torch.dtype = torch.float64
) -> None:
    """The module is full attention masked to ``seen`` (…, N, N), with and without padding.

    Its gradients as well. Padded queries are left out: they may get anything.
    """
    N = seen.shape[-1]
    x = inputs(N, dtype).requires_grad_()
    for mask in (None, holes(N)):
        valid = torch.ones(B, N, dtype=torch.bool) if mask is None else mask
        shown = seen & valid[:, None, None]
        for turn in (None, rotation(attention, N)):
            y = attention(x, mask, turn)
            wanted = by_definition(attention, x, shown, turn)
            torch.testing.assert_close(y[valid], wanted[valid], rtol=0, atol=ATOL[dtype])
            if dtype != torch.float64:
                continue
            through = [x, *attention.parameters()]
            for g, g_wanted in zip(
                torch.autograd.grad(y[valid].sin().sum(), through),
                torch.autograd.grad(wanted[valid].sin().sum(), through),
                strict=True,
            ):
                torch.testing.assert_close(g, g_wanted, rtol=0, atol=1e-10)


def moved_by(attention: Attention[Any], N: int, position: int) -> list[int]:
    """Positions whose output changes with the input at that one."""
    x = inputs(N)
    changed = x.clone()
    changed[:, position] += 1
    differ = (attention(changed) != attention(x)).any(dim=2).any(dim=0)
    moved: list[int] = differ.nonzero().flatten().tolist()
    return moved
