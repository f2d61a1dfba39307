"""Linformer: its limit, its length, its use of shorter sequences."""

from __future__ import annotations

import copy

import pytest
import torch

from nas.models import Transformer, build_attention, build_model
from nas.models.attention.linformer import Linformer
from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidInput

N = 48


def linformer(rank: int, sharing: str = "layer") -> Linformer:
    spec = {"type": "linformer", "rank": rank, "sharing": sharing}
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


def model(sharing: str) -> Transformer:
    """Two layers of one rank and one of another."""
    torch.manual_seed(0)
    layers = [
        {
            "attention": {"type": "linformer", "rank": rank, "sharing": sharing},
            "feedforward": {"type": "dense"},
        }
        for rank in (8, 8, 4)
    ]
    arch = Architecture.model_validate({"width": 16, "layers": layers, "position": "none"})
    return build_model(
        arch, vocab_size=20, num_outputs=20, max_length=N, causal=False, head="token"
    )


def test_layers_of_one_rank_share_one_projection() -> None:
    net = model("model")
    named = {name: p.shape for name, p in net.named_parameters() if "linformer" in name}
    assert named == {
        "shared.named.linformer_8": (1, 8, N),
        "shared.named.linformer_4": (1, 4, N),
    }
    assert {name for name in net.state_dict() if "linformer" in name} == set(named)
    apart = sum(p.numel() for p in model("layer").parameters())
    assert apart - sum(p.numel() for p in net.parameters()) == N * (2 * (8 + 8 + 4) - 8 - 4)


def test_what_is_shared_is_declared() -> None:
    specs = [layer.attention for layer in model("model").arch.layers]
    declared = {k: n for spec in specs for k, n in spec.shared_parameters(N, 16).items()}
    assert declared == {"linformer_8": 8 * N, "linformer_4": 4 * N}
    assert model("layer").arch.layers[0].attention.shared_parameters(N, 16) == {}


def test_all_layers_teach_the_shared_projection() -> None:
    net = model("model")
    tokens = torch.randint(20, (2, N))
    net(tokens).logits.square().sum().backward()
    first = net.shared.named["linformer_8"].grad
    with torch.no_grad():
        net.layers[1].attention.out.weight.zero_()
    net.zero_grad()
    net(tokens).logits.square().sum().backward()
    second = net.shared.named["linformer_8"].grad
    assert first is not None
    assert second is not None
    assert not torch.allclose(first, second)


def test_copies_and_loaded_models_share_as_well() -> None:
    net = model("model").double()
    copied = copy.deepcopy(net)
    tokens = torch.randint(20, (2, N))
    with torch.no_grad():
        copied.shared.named["linformer_8"].mul_(2)
    assert not torch.equal(copied(tokens).logits, net(tokens).logits)
    copied.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(copied(tokens).logits, net(tokens).logits)


def test_shared_keys_and_values_are_shortened_alike() -> None:
    module = linformer(8, "model").double()
    x = torch.randn(2, N, 16, dtype=torch.float64)
    (name,) = (n for n, _ in module.named_parameters() if "linformer" in n)
    e = module.get_parameter(name)[0]
    q, k, v = (t.unflatten(2, (2, 8)).transpose(1, 2) for t in module.qkv(x).chunk(3, dim=-1))
    mixed = (q @ (e @ k).transpose(2, 3) / 8**0.5).softmax(dim=-1) @ (e @ v)
    wanted = module.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)
