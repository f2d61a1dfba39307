"""BigBird: tiles against definition, its random blocks, and short inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.models import build_attention
from nas.models.attention.bigbird import NO_LINK, BigBird, mix_linked, mix_linked_plainly
from nas.models.attention.window import Rows
from search_spaces.attention.bigbird import BigBirdAttention
from search_spaces.errors import InvalidInput

from .sparse import E, H, equals_definition, inputs, module, moved_by

SPECS = [(4, 1, 2), (4, 0, 0), (4, 2, 0), (7, 0, 3), (16, 2, 3), (1, 3, 1)]


def bigbird(N: int, dtype: torch.dtype = torch.float64, seed: int = 3, **fields: Any) -> BigBird:
    built = module({"type": "bigbird", **fields}, N, False, dtype, seed)
    assert isinstance(built, BigBird)
    return built


def pattern(built: BigBird, N: int) -> Tensor:
    """What is seen, pair by pair, by the links in the state dict."""
    spec, links = built.spec, built.state_dict()["links"].tolist()
    seen = torch.zeros(N, N, dtype=torch.bool)
    for i in range(N):
        for j in range(N):
            a, b = i // spec.block, j // spec.block
            seen[i, j] = abs(a - b) <= 1 or min(a, b) < spec.globals or b in links[a]
    return seen


@pytest.mark.parametrize(("block", "leading", "linked"), SPECS)
@pytest.mark.parametrize(("N", "longest"), [(1, 1), (32, 32), (61, 61), (10, 61), (45, 61)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_full_attention_masked(
    N: int, longest: int, block: int, leading: int, linked: int, dtype: torch.dtype
) -> None:
    built = bigbird(longest, dtype, block=block, globals=leading, random=linked)
    equals_definition(built, pattern(built, N), dtype)


def test_fast_form_equals_plain_form() -> None:
    N, spec = 1100, BigBirdAttention(block=32)
    links = spec.links(N, seed=5)
    built = bigbird(N)
    x = [t.detach().requires_grad_() for t in built._project_rows(inputs(N)[:1], None)]
    fast, plain = (
        mix(x[0], Rows(*x[1:]), H, spec, links, None) for mix in (mix_linked, mix_linked_plainly)
    )
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), x),
        torch.autograd.grad(plain.sin().sum(), x),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("block", "leading", "linked"), SPECS)
def test_links_lead_to_blocks_not_seen_anyway(block: int, leading: int, linked: int) -> None:
    spec = BigBirdAttention(block=block, globals=leading, random=linked)
    for i, row in enumerate(spec.links(211, seed=1)):
        assert len(set(row)) == len(row)
        assert all(abs(i - j) > 1 and j >= leading for j in row)
        assert all((j + 1) * block <= 211 for j in row)
        if i < leading:
            assert row == []
        elif 211 // block - leading >= linked + 3:
            assert len(row) == linked


@pytest.mark.parametrize("N", [1, 64, 65, 500])
def test_no_key_is_seen_twice(N: int) -> None:
    spec = BigBirdAttention(block=16)
    tiles = list(spec.tiles(N, spec.links(500, seed=2)))
    assert [t.start for t in tiles] == list(range(0, N, 16))
    assert tiles[-1].stop == N
    for tile in tiles:
        keys = [j for r in tile.keys for j in range(r.first, r.last)]
        assert len(set(keys)) == len(keys)
        assert max(keys) < N


def test_a_short_input_changes_nothing() -> None:
    built = bigbird(400, block=16).eval()
    x = inputs(400)
    before = built(x)
    built(x[:, :20])
    assert torch.equal(built(x), before)
    full = build_attention({"type": "full"}, d_model=H * E, heads=H, max_length=400, causal=False)
    full.double().load_state_dict({k: v for k, v in built.state_dict().items() if k != "links"})
    assert not torch.allclose(full(x), before)
    torch.testing.assert_close(built(x[:, :20]), full(x[:, :20]), rtol=0, atol=1e-10)


def test_links_are_part_of_the_state() -> None:
    one, other = (bigbird(300, block=16, seed=s) for s in (1, 2))
    assert not torch.equal(one.links, other.links)
    x = inputs(300)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    assert torch.equal(bigbird(300, block=16, seed=1).links, one.links)
    assert (one.links[:2] == NO_LINK).all()
    assert (one.links[2:] != NO_LINK).all()


def test_who_sees_a_position() -> None:
    built = bigbird(200, block=10, globals=1, random=2)
    links = built.links.tolist()
    for block in (0, 7, 19):
        seers = {0, *(i for i, row in enumerate(links) if block in row)}
        seers |= {i for i in range(20) if abs(i - block) <= 1 or block == 0}
        wanted = [i for b in sorted(seers) for i in range(10 * b, 10 * b + 10)]
        assert moved_by(built, 200, 10 * block + 3) == wanted


def test_longer_than_the_links_were_drawn_for() -> None:
    with pytest.raises(InvalidInput, match="drawn for 40"):
        bigbird(40)(inputs(41))
