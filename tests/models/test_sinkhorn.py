"""Sorted blocks: the balancing, tiles against the definition, and the limits of sorting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.models import build_attention
from nas.models.attention.sinkhorn import (
    Cut,
    Sinkhorn,
    balance,
    balance_plainly,
    mix_sorted,
    mix_sorted_plainly,
)
from search_spaces.errors import InvalidInput

B, H, E = 2, 2, 8
P = B * H


def module(N: int, causal: bool, **fields: Any) -> Sinkhorn:
    torch.manual_seed(3)
    built = build_attention(
        {"type": "sinkhorn", **fields}, d_model=H * E, heads=H, max_length=N, causal=causal
    ).double()
    assert isinstance(built, Sinkhorn)
    return built


def logits(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return 2 * torch.randn(P, n, n, generator=generator, dtype=torch.float64)


def everything(n: int) -> Tensor:
    return torch.ones(P, n, n, dtype=torch.bool)


def side_by_side(x: Tensor, N: int) -> Tensor:
    """(P, n, C, E) → (B, N, H·E)."""
    return x.flatten(1, 2)[:, :N].unflatten(0, (B, H)).transpose(1, 2).flatten(2)


def block_local(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """Full attention within blocks, (B, H, N, E)."""
    return functional.scaled_dot_product_attention(
        *(t.unflatten(2, (-1, size)) for t in (q, k, v))
    ).flatten(2, 3)


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_rows_and_columns_sum_to_one(n: int) -> None:
    order = balance(logits(n), everything(n), 200, False)
    ones = torch.ones(P, n, dtype=torch.float64)
    assert (order >= 0).all()
    torch.testing.assert_close(order.sum(2), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(order.sum(1), ones, rtol=0, atol=1e-6)


def test_few_iterations_are_not_enough() -> None:
    once, often = (balance(logits(16), everything(16), i, False).sum(1) for i in (1, 20))
    assert (once - 1).abs().max() > 10 * (often - 1).abs().max()


def test_what_is_hidden_takes_no_part() -> None:
    visible = everything(7)
    visible[:, 5:] = False
    visible[:, :, 5:] = False
    order = balance(logits(7), visible, 4, False)
    alone = balance(logits(7)[:, :5, :5].contiguous(), everything(5), 4, False)
    torch.testing.assert_close(order[:, :5, :5], alone, rtol=0, atol=1e-12)
    assert (order[~visible] == 0).all()


@pytest.mark.parametrize("n", [2, 9])
def test_causal_balancing(n: int) -> None:
    """Each entry is divided by what stands above it in its column, then its row is made 1."""
    values = logits(n)
    order = balance(values, everything(n).tril(-1), 3, True)
    wanted = values.exp().tril(-1)
    for _ in range(3):
        wanted = wanted / wanted.cumsum(1).clamp_min(1e-300)
        wanted = wanted / wanted.sum(2, keepdim=True).clamp_min(1e-300)
    torch.testing.assert_close(order, wanted, rtol=0, atol=1e-12)
    for i in range(n):
        changed = values.clone()
        changed[:, i:] += 3
        again = balance(changed, everything(n).tril(-1), 3, True)
        assert torch.equal(again[:, :i], order[:, :i])


@pytest.mark.parametrize("causal", [True, False])
def test_balancing_again_in_the_backward_pass(causal: bool) -> None:
    visible = everything(9).tril(-1) if causal else everything(9)
    source = logits(9).requires_grad_()
    fast, plain = (
        torch.autograd.grad(f(source, visible, 5, causal).sin().sum(), source)[0]
        for f in (balance, balance_plainly)
    )
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-13)
    small = logits(4)[:1].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: balance(x, visible[:1, :4, :4], 5, causal), (small,), fast_mode=True
    )


def tensors(N: int, C: int, causal: bool, holes: bool) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(N)
    n = -(-N // C)
    valid = functional.pad(torch.ones(P, N, dtype=torch.float64), (0, n * C - N))
    if holes:
        valid[0, N // 4 : N // 2] = 0
        valid[1, : N // 3] = 0
    valid = valid.unflatten(1, (n, C))
    q, k, v = (
        torch.randn(3, P, n, C, E, generator=generator, dtype=torch.float64) * valid.unsqueeze(-1)
    ).unbind()
    whole = valid.amax(2) > 0
    visible = whole.unsqueeze(2) & whole.unsqueeze(1)
    order = balance(logits(n), visible.tril(-1) if causal else visible, 5, causal)
    return q, k, v, order, valid


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("tile", [1, 2**10, 2**17])
@pytest.mark.parametrize("N", [1, 8, 13, 64, 100])
def test_tiles_equal_the_definition(
    N: int, tile: int, holes: bool, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_spaces.attention.sinkhorn.TILE", tile)
    *inputs, valid = tensors(N, 8, causal, holes)
    for x in inputs:
        x.requires_grad_()
    cut = Cut(N, H, causal)
    used = side_by_side(valid.unsqueeze(-1).expand(-1, -1, -1, E), N)
    fast = mix_sorted(*inputs, valid, cut) * used
    plain = side_by_side(mix_sorted_plainly(*inputs, valid, cut), N) * used
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), inputs),
        torch.autograd.grad(plain.sin().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-11)


def test_a_permutation_moves_whole_blocks() -> None:
    q, k, v, _, valid = tensors(24, 8, False, False)
    order = torch.eye(3, dtype=torch.float64)[[2, 0, 1]].expand(P, 3, 3)
    mixed = mix_sorted(q, k, v, order, valid, Cut(24, H, False))
    keys, values = (torch.cat((t, t[:, [2, 0, 1]]), dim=2) for t in (k, v))
    wanted = functional.scaled_dot_product_attention(q, keys, values)
    torch.testing.assert_close(mixed, side_by_side(wanted, 24), rtol=0, atol=1e-12)


def test_a_short_block_lends_only_its_tokens() -> None:
    q, k, v, _, valid = tensors(21, 8, False, False)
    order = torch.eye(3, dtype=torch.float64)[[2, 1, 0]].expand(P, 3, 3)
    mixed = mix_sorted(q, k, v, order, valid, Cut(21, H, False))
    keys, values = (torch.cat((t[:, 0], t[:, 2, :5]), dim=1) for t in (k, v))
    wanted = functional.scaled_dot_product_attention(q[:, 0], keys, values)
    first = mixed[:, :8].unflatten(2, (H, E)).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(first, wanted, rtol=0, atol=1e-12)


def test_parameters_can_force_the_identity() -> None:
    sinkhorn = module(64, False, block=16)
    with torch.no_grad():
        sinkhorn.places.copy_(60 * torch.eye(4, E).expand(2, H, 4, E))
    x = torch.randn(B, 64, H * E, dtype=torch.float64)
    q, k, v = sinkhorn._project(x, None)
    valid = torch.ones(P, 4, 16, dtype=torch.float64)
    order = sinkhorn.sort(*(t.flatten(0, 1).unflatten(1, (4, 16)) for t in (q, k)), valid)
    eye = torch.eye(4, dtype=torch.float64).expand(P, 4, 4)
    torch.testing.assert_close(order, eye, rtol=0, atol=1e-12)
    # what is seen twice weighs as if seen once
    wanted = sinkhorn.out(block_local(q, k, v, 16).transpose(1, 2).flatten(2))
    torch.testing.assert_close(sinkhorn(x), wanted, rtol=0, atol=1e-12)


def test_one_block_is_full_attention() -> None:
    full = build_attention(
        {"type": "full"}, d_model=H * E, heads=H, max_length=50, causal=True
    ).double()
    sinkhorn = module(50, True, block=64)
    full.load_state_dict(sinkhorn.state_dict(), strict=False)
    x = torch.randn(B, 50, H * E, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(x), full(x), rtol=0, atol=1e-12)


def test_a_low_temperature_sharpens() -> None:
    x = torch.randn(1, 64, H * E, dtype=torch.float64)

    def largest(temperature: float) -> float:
        sinkhorn = module(64, False, block=8, temperature=temperature)
        q, k, _ = sinkhorn._project(x, None)
        blocks = (t.flatten(0, 1).unflatten(1, (8, 8)) for t in (q, k))
        order = sinkhorn.sort(*blocks, torch.ones(H, 8, 8, dtype=torch.float64))
        return order.amax(2).mean().item()

    assert largest(0.25) > largest(0.75) > largest(3.0)


def test_a_causal_query_sees_its_block_and_all_earlier_ones() -> None:
    sinkhorn = module(64, True, block=8)
    x = torch.randn(1, 64, H * E, dtype=torch.float64)

    def moved_by(position: int) -> list[int]:
        changed = x.clone()
        changed[:, position] += 1
        moved: list[int] = (sinkhorn(changed) != sinkhorn(x)).any(2)[0].nonzero().flatten().tolist()
        return moved

    assert moved_by(20) == list(range(20, 64))
    assert moved_by(63) == [63]


@pytest.mark.parametrize("N", [1, 7, 8, 9, 30])
def test_a_prefix_is_sorted_alike(N: int) -> None:
    sinkhorn = module(64, True, block=8)
    x = torch.randn(B, 64, H * E, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(x[:, :N]), sinkhorn(x)[:, :N], rtol=0, atol=1e-12)


def test_training_has_no_noise() -> None:
    sinkhorn = module(64, False, block=8)
    x = torch.randn(B, 64, H * E, dtype=torch.float64)
    assert torch.equal(sinkhorn.train()(x), sinkhorn.eval()(x))


def test_places_end_at_the_longest_sequence() -> None:
    with pytest.raises(InvalidInput, match="64"):
        module(64, True, block=8)(torch.randn(1, 65, H * E, dtype=torch.float64))
