"""Attention by hashing: sorted chunks against the definition, its limits, its seed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.models import build_attention
from nas.models.attention.reformer import Reformer, mix_hashed, mix_hashed_plainly
from nas.models.replay import recording, replaying
from search_spaces.attention.reformer import ReformerAttention, factors, layout

B, H, E = 2, 2, 8


def module(N: int, causal: bool, **fields: Any) -> Reformer:
    torch.manual_seed(3)
    built = build_attention(
        {"type": "reformer", **fields}, d_model=H * E, heads=H, max_length=N, causal=causal
    ).double()
    assert isinstance(built, Reformer)
    return built


def tensors(N: int, buckets: int, rounds: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and values (B, N, H, E) and buckets (R, B, N, H)."""
    generator = torch.Generator().manual_seed(N)
    qk, v = torch.randn(2, B, N, H, E, generator=generator, dtype=torch.float64).unbind()
    return qk, v, torch.randint(buckets, (rounds, B, N, H), generator=generator)


def shared_full(qk: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Full attention of queries that are their own keys, themselves left out, (B, N, D)."""
    q, v = qk.transpose(1, 2), v.transpose(1, 2)
    k = q / q.norm(dim=-1, keepdim=True)
    N = q.shape[2]
    hidden = torch.eye(N, dtype=torch.bool)
    if causal:
        hidden = hidden | torch.ones(N, N, dtype=torch.bool).triu(1)
    if causal or N == 1:
        hidden[0, 0] = False  # the first token has nothing else to see
    mixed = (q @ k.mT).masked_fill(hidden, -math.inf).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("buckets", [1, 2, 6, 40])
@pytest.mark.parametrize("N", [1, 5, 16, 33, 64, 100])
def test_chunks_equal_the_definition(N: int, buckets: int, causal: bool) -> None:
    qk, v, hashed = tensors(N, buckets)
    cut = layout(N, 16, buckets, causal)
    fast, plain = mix_hashed(qk, v, hashed, cut), mix_hashed_plainly(qk, v, hashed, cut)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_gradients_equal_the_definition(rounds: int, causal: bool) -> None:
    qk, v, hashed = tensors(70, 4, rounds)
    inputs = qk.requires_grad_(), v.requires_grad_()
    cut = layout(70, 8, 4, causal)
    fast = torch.autograd.grad(mix_hashed(*inputs, hashed, cut).sin().sum(), inputs)
    plain = torch.autograd.grad(mix_hashed_plainly(*inputs, hashed, cut).sin().sum(), inputs)
    for g, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("causal", [True, False])
def test_many_rows_in_many_slices(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    qk, v, hashed = tensors(100, 5)
    cut = layout(100, 8, 5, causal)
    at_once = mix_hashed(qk, v, hashed, cut)
    monkeypatch.setattr("search_spaces.attention.reformer.TILE", 3 * 2 * 8 * 8)
    assert cut.slice(100) == 3
    torch.testing.assert_close(mix_hashed(qk, v, hashed, cut), at_once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("N", [1, 2, 30, 64])
def test_one_bucket_is_full_attention(N: int, causal: bool) -> None:
    reformer = module(N, causal, chunk=64, hashes=4)
    assert reformer.factors == ()
    x = torch.randn(B, N, H * E, dtype=torch.float64)
    qk, v = (t.unflatten(2, (H, E)) for t in reformer.qkv(x).chunk(2, dim=-1))
    wanted = reformer.out(shared_full(qk, v, causal))
    torch.testing.assert_close(reformer(x), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_a_pair_that_meets_often_counts_once(causal: bool) -> None:
    qk, v, hashed = tensors(60, 3, rounds=1)
    cut = layout(60, 16, 3, causal)
    once = mix_hashed(qk, v, hashed, cut)
    again = mix_hashed(qk, v, hashed.repeat(4, 1, 1, 1), cut)
    torch.testing.assert_close(again, once, rtol=0, atol=1e-12)


def test_rounds_add_up_to_the_union() -> None:
    """Two halves in one round and one whole in the other: every token sees every other."""
    qk, v, _ = tensors(32, 1)
    halves = (torch.arange(32) // 16).view(1, 32, 1).expand(B, 32, H)
    hashed = torch.stack((halves, torch.zeros_like(halves), halves))
    mixed = mix_hashed(qk, v, hashed, layout(32, 32, 2, False))
    torch.testing.assert_close(mixed, shared_full(qk, v, False), rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_a_token_alone_sees_itself(causal: bool) -> None:
    qk, v, _ = tensors(12, 1)
    alone = torch.arange(12).view(1, 1, 12, 1).expand(2, B, 12, H)
    mixed = mix_hashed(qk, v, alone, layout(12, 4, 12, causal))
    torch.testing.assert_close(mixed, v.flatten(2), rtol=0, atol=1e-12)


def test_only_the_own_bucket_is_seen() -> None:
    qk, v, hashed = tensors(50, 4, rounds=2)
    cut = layout(50, 8, 4, False)
    changed = v.clone()
    changed[0, 20, 0] += 1
    moved = mix_hashed(qk, changed, hashed, cut) != mix_hashed(qk, v, hashed, cut)
    moved = moved.unflatten(2, (H, E)).any(-1)
    met = (hashed == hashed[:, :, 20:21]).any(0)
    assert moved[0, :, 0].any()
    assert not (moved & ~met).any()
    assert not moved[1].any()
    assert not moved[:, :, 1].any()


@pytest.mark.parametrize("scale", [1e-3, 20.0])
def test_far_from_usual_lengths(scale: float) -> None:
    qk, v, hashed = tensors(64, 4)
    qk = (qk * scale).float()
    cut = layout(64, 16, 4, True)
    fast = mix_hashed(qk, v.float(), hashed, cut)
    plain = mix_hashed_plainly(qk.double(), v, hashed, cut)
    torch.testing.assert_close(fast.double(), plain, rtol=0, atol=2e-4)


def test_the_nearest_of_opposite_directions() -> None:
    reformer = module(96, False, chunk=16, hashes=2)
    assert reformer.factors == (6,)
    qk = torch.randn(B, 96, H, E, dtype=torch.float64)
    turned = torch.einsum("bnhe,rec->rbnhc", qk, reformer.rotations)
    wanted = torch.cat((turned, -turned), dim=-1).argmax(-1)
    assert torch.equal(reformer._buckets(qk).long(), wanted)
    assert torch.equal(reformer._buckets(3 * qk), reformer._buckets(qk))


def test_two_hashes_tell_many_buckets_apart() -> None:
    reformer = module(16 * 40, False, chunk=16, hashes=1)
    first, second = reformer.factors
    qk = torch.randn(1, 640, H, E, dtype=torch.float64)
    hashed = reformer._buckets(qk)
    assert hashed.max() < first * second
    assert hashed.unique().numel() > max(first, second)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 16, 17, 100, 1000, 5000, 100_000])
def test_numbers_of_buckets(length: int, causal: bool) -> None:
    sizes = factors(length, 16, causal)
    wanted = length / (32 if causal else 16)
    assert all(size % 2 == 0 for size in sizes)
    assert math.prod(sizes) >= wanted or not sizes
    assert math.prod(sizes) <= 1.5 * wanted + 2
    assert sum(sizes) <= max(16, 2 * math.sqrt(wanted) + 4)


def test_the_hash_is_of_the_longest_sequence() -> None:
    """Of a prefix, a token's bucket is the same."""
    reformer = module(200, True, chunk=16, hashes=3)
    x = torch.randn(B, 200, H * E, dtype=torch.float64)
    torch.testing.assert_close(reformer(x[:, :37]), reformer(x)[:, :37], rtol=0, atol=1e-12)


def test_the_seed_of_the_hash_is_fixed() -> None:
    first, again = (module(200, False, chunk=16) for _ in range(2))
    assert torch.equal(first.rotations, again.rotations)
    assert "rotations" in first.state_dict()
    x = torch.randn(B, 200, H * E, dtype=torch.float64)
    y = first.train()(x)
    assert torch.equal(y, first.eval()(x))
    first.rotations.neg_().add_(1)
    assert not torch.equal(first(x), y)


def test_buckets_are_replayed() -> None:
    reformer = module(200, False, chunk=16)
    x = torch.randn(B, 200, H * E, dtype=torch.float64)
    tape: list[Tensor] = []
    with recording(tape):
        y = reformer(x)
    reformer.rotations.normal_()
    assert not torch.equal(reformer(x), y)
    with replaying(tape):
        assert torch.equal(reformer(x), y)


def test_gradients_with_buckets() -> None:
    reformer = module(40, True, chunk=8, hashes=2)
    assert reformer.factors
    x = torch.randn(1, 40, H * E, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(reformer, (x,), fast_mode=True)


def test_one_projection_serves_queries_and_keys() -> None:
    reformer = module(40, True)
    assert {n: tuple(p.shape) for n, p in reformer.named_parameters()} == {
        "qkv.weight": (2 * H * E, H * E),
        "out.weight": (H * E, H * E),
    }
    assert ReformerAttention().cost(1, 40, H * E, H, True).parameters == 3 * (H * E) ** 2
