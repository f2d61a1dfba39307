"""The fixed pattern: tiles against definition, what is seen at all, and decoding."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from nas.models.attention.fixed import mix_fixed, mix_fixed_plainly, summarised
from nas.models.attention.window import Rows
from search_spaces.attention.fixed import FixedAttention

from .sparse import H, equals_definition, inputs, module, moved_by

SPECS = [(1, 1), (4, 1), (5, 5), (8, 3), (40, 2)]


def pattern(N: int, block: int, summary: int, causal: bool) -> Tensor:
    """Both sets of section 4.2, pair by pair."""
    seen = torch.zeros(N, N, dtype=torch.bool)
    for i in range(N):
        for j in range(i + 1 if causal else N):
            seen[i, j] = i // block == j // block or j % block >= block - summary
    return seen


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("block", "summary"), SPECS)
@pytest.mark.parametrize("N", [1, 4, 39, 64, 65, 135, 199])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_full_attention_masked(
    N: int, block: int, summary: int, causal: bool, dtype: torch.dtype
) -> None:
    spec = {"type": "fixed", "block": block, "summary": summary}
    equals_definition(module(spec, N, causal, dtype), pattern(N, block, summary, causal), dtype)


@pytest.mark.parametrize("causal", [True, False])
def test_fast_form_equals_plain_form(causal: bool) -> None:
    N, spec = 1100, FixedAttention(block=64, summary=4)
    built = module({"type": "fixed"}, N, causal)
    x = [t.detach().requires_grad_() for t in built._project_rows(inputs(N)[:1], None)]
    fast, plain = (
        mix(x[0], Rows(*x[1:]), H, spec, causal, None) for mix in (mix_fixed, mix_fixed_plainly)
    )
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)
    for g, wanted in zip(
        torch.autograd.grad(fast.sin().sum(), x),
        torch.autograd.grad(plain.sin().sum(), x),
        strict=True,
    ):
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


def test_who_sees_a_position() -> None:
    N = 100
    spec = {"type": "fixed", "block": 10, "summary": 2}
    causal, both = (module(spec, N, c) for c in (True, False))
    assert moved_by(both, N, 43) == list(range(40, 50))
    assert moved_by(both, N, 48) == list(range(N))
    assert moved_by(causal, N, 43) == list(range(43, 50))
    assert moved_by(causal, N, 48) == list(range(48, N))


@pytest.mark.parametrize("N", [1, 5, 6, 7, 8, 12, 15, 16])
def test_summaries_of_a_last_block_are_those_that_exist(N: int) -> None:
    spec = FixedAttention(block=8, summary=3)
    places = torch.arange(N).view(1, N)
    assert summarised(places, spec)[0].tolist() == [j for j in range(N) if j % 8 >= 5]
    assert spec.summaries(N) == summarised(places, spec).shape[1]


@pytest.mark.parametrize(("block", "summary"), SPECS)
@pytest.mark.parametrize("pieces", [[1] * 150, [40, 1, 60, 49], [128, 22]])
def test_decoding_in_any_pieces(block: int, summary: int, pieces: list[int]) -> None:
    built = module({"type": "fixed", "block": block, "summary": summary}, 150, True)
    x = inputs(150)
    state, outputs = built.init_state(2), []
    for piece in x.split(pieces, dim=1):
        y, state = built.extend(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), built(x), rtol=0, atol=1e-12)


def test_the_cache_keeps_summaries_and_one_tile() -> None:
    built = module({"type": "fixed", "block": 64, "summary": 2}, 300, True)
    _, state = built.extend(inputs(300), built.init_state(2))
    assert state.summaries.keys.shape[1] == 2 * (300 // 64)
    assert state.recent.keys.shape[1] == 300 % 64
    recent = state.recent.keys
    assert recent.untyped_storage().nbytes() == recent.numel() * recent.element_size()


def test_more_summaries_than_a_block_has() -> None:
    with pytest.raises(ValidationError, match="do not fit"):
        FixedAttention(block=4, summary=5)
