"""BlockBERT: blocks against definition, its permutations, and short sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.models import build_attention
from nas.models.attention.blockbert import mix_blocks, mix_blocks_plainly, moved
from search_spaces.attention.blockbert import BlockBertAttention
from search_spaces.errors import InvalidInput

from .sparse import B, E, H, equals_definition, inputs, module, moved_by


def permutations(heads: int, blocks: int) -> list[list[int]]:
    """The block of keys of each block of queries, for each head."""
    return [
        [(i + h * min(heads, blocks) // heads) % blocks for i in range(blocks)]
        for h in range(heads)
    ]


def pattern(N: int, longest: int, blocks: int) -> Tensor:
    """Which keys each head sees, pair by pair."""
    size = -(-longest // blocks)
    seen = torch.zeros(H, N, N, dtype=torch.bool)
    for h, see in enumerate(permutations(H, blocks)):
        for i in range(N):
            for j in range(N):
                seen[h, i, j] = see[i // size] == j // size
    return seen


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(
    ("N", "longest"), [(1, 1), (24, 24), (31, 31), (5, 31), (16, 31), (30, 40)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_full_attention_masked(
    N: int, longest: int, blocks: int, dtype: torch.dtype
) -> None:
    built = module({"type": "blockbert", "blocks": blocks}, longest, False, dtype)
    equals_definition(built, pattern(N, longest, blocks), dtype)


@pytest.mark.parametrize("blocks", [2, 3])
def test_fast_form_equals_plain_form(blocks: int) -> None:
    N, spec = 100, BlockBertAttention(blocks=blocks)
    size = spec.size(N)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, N, H, E, generator=generator, dtype=torch.float64) for _ in range(3))
    fast = mix_blocks(q, moved(k, size, spec), moved(v, size, spec), size, spec, None)
    plain = mix_blocks_plainly(q, k, v, size, spec, None)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("heads", "blocks"), [(1, 3), (4, 2), (12, 3), (3, 8)])
def test_every_head_sees_every_block_once(heads: int, blocks: int) -> None:
    spec = BlockBertAttention(blocks=blocks)
    covered = [h for shift in spec.shifts(heads) for h in shift]
    assert covered == list(range(heads))
    assert len(spec.shifts(heads)) == min(heads, blocks)
    assert len({len(shift) for shift in spec.shifts(heads)}) == 1
    for see in permutations(heads, blocks):
        assert sorted(see) == list(range(blocks))


def test_one_block_is_full_attention() -> None:
    one, full = (
        build_attention(s, d_model=H * E, heads=H, max_length=50, causal=False)
        for s in ({"type": "blockbert", "blocks": 1}, {"type": "full"})
    )
    full.load_state_dict(one.state_dict())
    x = inputs(50, torch.float32)
    torch.testing.assert_close(one(x), full(x), rtol=0, atol=2e-6)


def test_who_sees_a_position() -> None:
    built = module({"type": "blockbert", "blocks": 8}, 80, False)
    # four heads: the own block, and as one of the next three
    assert moved_by(built, 80, 45) == list(range(10, 50))
    assert moved_by(built, 80, 5) == [*range(10), *range(50, 80)]


def test_heads_without_their_block_give_nothing() -> None:
    built = module({"type": "blockbert", "blocks": 2}, 40, False)
    x = inputs(15)
    mixed = built._mix(x, None, None)
    assert (mixed[:, :, : H // 2 * E] != 0).all()
    assert (mixed[:, :, H // 2 * E :] == 0).all()


def test_longer_than_the_blocks_were_made_for() -> None:
    with pytest.raises(InvalidInput, match="blocks were made for 40"):
        module({"type": "blockbert"}, 40, False)(inputs(41))
