"""Linformer: its limit, its length, its use of shorter sequences."""

from __future__ import annotations

import pytest
import torch

from nas.models import build_attention
from nas.models.attention.linformer import Linformer
from search_spaces.errors import InvalidInput

N = 48


def linformer(rank: int) -> Linformer:
    spec = {"type": "linformer", "rank": rank}
    module = build_attention(spec, d_model=16, heads=2, max_length=N, causal=False)
    assert isinstance(module, Linformer)
    return module


def test_identity_projections_are_full_attention() -> None:
    module = linformer(N)
    with torch.no_grad():
        module.shorten.copy_(torch.eye(N).expand(2, N, N))
    full = build_attention({"type": "full"}, d_model=16, heads=2, max_length=N, causal=False)
    full.qkv.load_state_dict(module.qkv.state_dict())
    full.out.load_state_dict(module.out.state_dict())
    x = torch.randn(2, N, 16)
    torch.testing.assert_close(module(x), full(x), rtol=0, atol=2e-6)


def test_projections_differ_for_keys_and_values() -> None:
    module = linformer(8).double()
    x = torch.randn(2, N, 16, dtype=torch.float64)
    q, k, v = (t.unflatten(2, (2, 8)).transpose(1, 2) for t in module.qkv(x).chunk(3, dim=-1))
    k, v = module.shorten[0] @ k, module.shorten[1] @ v
    mixed = (q @ k.transpose(2, 3) / 8**0.5).softmax(dim=-1) @ v
    wanted = module.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)


def test_shorter_sequences_use_the_first_columns() -> None:
    module = linformer(8)
    x = torch.randn(2, 20, 16)
    before = module(x)
    with torch.no_grad():
        module.shorten[:, :, 20:] = 0
    assert torch.equal(module(x), before)


def test_too_long() -> None:
    with pytest.raises(InvalidInput, match=f"{N + 1} tokens, but .* for {N}"):
        linformer(8)(torch.randn(1, N + 1, 16))
