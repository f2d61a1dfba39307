"""Transformer-XL: relative terms against their definition, and the memory of segments before."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.errors import Unsupported
from nas.measure.memory import LiveBytes
from nas.models import build_attention
from nas.models.attention.transformer_xl import (
    mix_by_distance,
    mix_by_distance_plainly,
    shift,
)
from nas.models.positions import Positions
from search_spaces.attention.base import Position
from search_spaces.attention.window import BLOCK

D, H = 16, 2
slots = pytest.mark.parametrize("causal", [True, False])


def built(causal: bool = True, memory: int = 64, position: Position = "none") -> Any:
    torch.manual_seed(0)
    spec = {"type": "transformer_xl", "memory": memory}
    module = build_attention(
        spec, d_model=D, heads=H, max_length=200, causal=causal, position=position
    )
    with torch.no_grad():
        module.get_parameter("offsets").normal_()  # large enough to be noticed
    return module.double()


def inputs(N: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, N, D, generator=generator, dtype=torch.float64)


def tensors(N: int, T: int, causal: bool) -> list[Tensor]:
    """Queries, keys, values, distances, u and v."""
    generator = torch.Generator().manual_seed(N + T)
    E, reach = D // H, min(BLOCK, N) if causal else N
    shapes = [(2, N, H, E), *[(2 * H, T + N, E)] * 2, (H, T + N + reach, E), (H, E), (H, E)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("C", [1, 2, 7])
@pytest.mark.parametrize("K", [1, 5, 20])
def test_the_shift_is_a_lookup_by_distance(C: int, K: int) -> None:
    places = torch.randn(3, C, C + K)
    naive = torch.stack(
        [places[:, c, C - 1 - c : C - 1 - c + K] for c in range(C)], dim=1
    )  # entry w of a row is of a distance that falls by one with w, and grows by one with the row
    assert torch.equal(shift(places, K), naive)
    assert shift(places, K).data_ptr() == places[:, :, C - 1 :].data_ptr()


@slots
@pytest.mark.parametrize(
    ("N", "T"), [(1, 0), (1, 5), (63, 0), (64, 1), (65, 0), (130, 70)], ids=str
)
def test_blocks_equal_the_definition(causal: bool, N: int, T: int) -> None:
    x = tensors(N, T, causal)
    valid = torch.ones(2, T + N, dtype=torch.bool)
    valid[1, (T + N) // 3 : (T + N) // 2] = False
    for mask in (None, valid):
        fast, plain = (f(*x, causal, mask) for f in (mix_by_distance, mix_by_distance_plainly))
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)
        for g, wanted in zip(
            torch.autograd.grad(fast.sin().sum(), x),
            torch.autograd.grad(plain.sin().sum(), x),
            strict=True,
        ):
            torch.testing.assert_close(g, wanted, rtol=0, atol=1e-9)


@slots
def test_scores_are_the_four_terms_of_the_paper(causal: bool) -> None:
    N, E = 20, D // H
    module, x = built(causal), inputs(20)
    q, k, values = (t.view(2, N, H, E).transpose(1, 2) for t in module.qkv(x).chunk(3, dim=-1))
    u, v = module.offsets
    scores = torch.empty(2, H, N, N, dtype=torch.float64)
    frequencies = [10_000 ** (-2 * n / D) for n in range(D // 2)]
    for i in range(N):
        for j in range(N):
            angles = torch.tensor([(i - j) * f for f in frequencies], dtype=torch.float64)
            wave = torch.cat((angles.sin(), angles.cos()))
            r = (module.distance.weight @ wave).view(H, E)
            content = (q[:, :, i] * k[:, :, j]).sum(-1) + (u * k[:, :, j]).sum(-1)
            place = (q[:, :, i] * r).sum(-1) + (v * r).sum(-1)
            scores[:, :, i, j] = (content + place) / math.sqrt(E)
    if causal:
        scores = scores.masked_fill(torch.ones(N, N).triu(1).bool(), -math.inf)
    wanted = module.out((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("N", [1, 40, 64, 100])
def test_two_segments_are_one_pass(N: int) -> None:
    module, x = built(memory=128), inputs(2 * N)
    first, second = x[:, :N], x[:, N:]
    memory = module.remember(first, None)
    y = torch.cat((module(first), module(second, memory=memory)), dim=1)
    torch.testing.assert_close(y, module(x), rtol=0, atol=1e-10)
    masked = module(second, torch.ones(2, N, dtype=torch.bool), memory=memory)
    torch.testing.assert_close(masked, y[:, N:], rtol=0, atol=1e-10)


def test_a_hole_after_a_memory_is_not_seen() -> None:
    module, x = built(), inputs(90)
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[0, 10:20] = False
    memory = module.remember(x[:, :40], None)
    y = module(x[:, 40:], mask, memory=memory)
    whole = torch.cat((torch.ones(2, 40, dtype=torch.bool), mask), dim=1)
    torch.testing.assert_close(y[mask], module(x, whole)[:, 40:][mask], rtol=0, atol=1e-10)


def test_memory_keeps_the_last_positions_and_no_gradient() -> None:
    module, x = built(memory=16), inputs(30).requires_grad_()
    assert module.memory_size == 16
    early = module.remember(x[:, :10], None)
    memory = module.remember(x[:, 10:], early)
    assert early.shape == (2, 10, D)
    assert torch.equal(memory, x[:, 14:])
    assert torch.equal(module.remember(x[:, 10:12], early), x[:, :12])
    assert not memory.requires_grad
    assert memory.untyped_storage().nbytes() == 8 * memory.numel()
    held = x * 1
    (gradient,) = torch.autograd.grad(module(x, memory=held).sum(), held, allow_unused=True)
    assert gradient is None


def test_memory_trains_the_projections_of_keys() -> None:
    module, x = built(), inputs(20)
    alone, after = (
        torch.autograd.grad(module(x, memory=m).sin().sum(), module.qkv.weight)[0]
        for m in (None, module.remember(x, None))
    )
    assert (alone - after).abs().max() > 1e-3


def test_an_encoder_has_no_memory() -> None:
    module, x = built(causal=False), inputs(20)
    assert module.memory_size == 0
    with pytest.raises(Unsupported, match="transformer_xl attention has no memory"):
        module(x, memory=x)


def test_others_have_no_memory() -> None:
    full = build_attention({"type": "full"}, d_model=D, heads=H, max_length=20, causal=True)
    assert full.memory_size == 0
    with pytest.raises(Unsupported, match="full attention has no memory"):
        full(torch.randn(2, 20, D), memory=torch.randn(2, 5, D))


@slots
@pytest.mark.parametrize("position", ["rotary", "alibi", "relative"])
def test_its_own_positions_take_the_place_of_others(position: Position, causal: bool) -> None:
    module, other = built(causal), built(causal, position=position)
    x = inputs(30)
    turn = Positions("rotary", D, 30).rotation(D // H, 0, 30, x)
    assert torch.equal(other(x, None, turn), module(x))
    parameters = sum(p.numel() for p in other.parameters())
    added = other.spec.position_parameters(position, H)
    assert parameters == other.spec.cost(1, 30, D, H, causal).parameters + added


@slots
def test_memory_is_never_of_all_pairs(causal: bool) -> None:
    peaks = []
    for N in (1024, 2048):
        module = build_attention(
            {"type": "transformer_xl"}, d_model=D, heads=H, max_length=N, causal=causal
        )
        x = torch.randn(1, N, D)
        module(x)  # the table of distances is made once for all layers
        with LiveBytes() as live:
            module(x).sum().backward()
        peaks.append(live.peak)
    assert peaks[1] < 2.1 * peaks[0]
    assert peaks[1] < 4 * H * 2048**2 / 4
