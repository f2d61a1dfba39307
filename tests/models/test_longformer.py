"""The sliding window: blocks against the definition, and its limits."""

from __future__ import annotations

import pytest
import torch

from nas.models import build_attention
from nas.models.attention.longformer import Longformer
from nas.models.attention.window import Band, mix_locally, mix_locally_plainly
from search_spaces.attention.window import BLOCK, blocks

H = 2


def tensors(N: int, T: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(N + T)
    lengths = (N, T + N, T + N)
    return tuple(
        torch.randn(2 * H, n, 8, generator=generator, dtype=torch.float64).to(dtype)
        for n in lengths
    )


def seeing(band: Band, N: int, mask: torch.Tensor | None) -> torch.Tensor:
    """Rows (B, N, 1) of queries that see a key at all: what others get is left open."""
    if mask is None:
        return torch.ones(2, N, 1, dtype=torch.bool)
    i, j = torch.arange(N).unsqueeze(1), torch.arange(N)
    seen = ((j >= i - band.left) & (j <= i + band.right)) | (j < band.leading)
    return (seen & mask.unsqueeze(1)).any(dim=2, keepdim=True)


BANDS = [
    Band(left, right, leading)
    for left in (1, 16, 200)
    for right in (0, left)
    for leading in (0, 3, 70)
]


@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize("N", [1, 5, 64, 65, 128, 190])
def test_blocks_equal_the_definition(band: Band, N: int) -> None:
    q, k, v = tensors(N)
    valid = torch.ones(2, N, dtype=torch.bool)
    valid[1, N // 3 : N // 2] = False
    for mask in (None, valid):
        fast = mix_locally(q, k, v, H, band, mask)
        plain = mix_locally_plainly(q, k, v, H, band, mask)
        rows = seeing(band, N, mask)
        torch.testing.assert_close(fast * rows, plain * rows, rtol=0, atol=2e-6)


@pytest.mark.parametrize("band", BANDS, ids=str)
def test_gradients_equal_the_definition(band: Band) -> None:
    x = [t.requires_grad_() for t in tensors(140, dtype=torch.float64)]
    valid = torch.ones(2, 140, dtype=torch.bool)
    valid[0, :90] = False
    for mask in (None, valid):
        fast = mix_locally(*x, H, band, mask)
        plain = mix_locally_plainly(*x, H, band, mask)
        rows = seeing(band, 140, mask)
        for g, wanted in zip(
            torch.autograd.grad((fast * rows).sin().sum(), x),
            torch.autograd.grad((plain * rows).sin().sum(), x),
            strict=True,
        ):
            torch.testing.assert_close(g, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("T", [1, 7, 100])
def test_keys_before_the_first_query(T: int) -> None:
    band = Band(16, 0, 0)
    q, k, v = tensors(80, T)
    fast = mix_locally(q, k, v, H, band, None)
    plain = mix_locally_plainly(q, k, v, H, band, None)
    torch.testing.assert_close(fast, plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_a_window_as_long_as_the_sequence_is_full_attention(causal: bool) -> None:
    spec = {"type": "longformer", "window": 150, "globals": 0}
    local, full = (
        build_attention(s, d_model=16, heads=H, max_length=150, causal=causal)
        for s in (spec, {"type": "full"})
    )
    full.load_state_dict(local.state_dict())
    x = torch.randn(2, 150, 16)
    torch.testing.assert_close(local(x), full(x), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("causal", "right"), [(True, 0), (False, 16)])
def test_the_window_ends_where_it_says(causal: bool, right: int) -> None:
    spec = {"type": "longformer", "window": 16, "globals": 0}
    module = build_attention(spec, d_model=16, heads=H, max_length=200, causal=causal)
    x = torch.randn(1, 200, 16)
    changed = x.clone()
    changed[:, 100] += 1
    moved = (module(changed) != module(x)).any(dim=2)[0].nonzero().flatten().tolist()
    assert moved == list(range(100 - right, 100 + 16 + 1))


def test_global_positions_see_and_are_seen_by_all() -> None:
    spec = {"type": "longformer", "window": 4, "globals": 2}
    module = build_attention(spec, d_model=16, heads=H, max_length=200, causal=False).double()
    x = torch.randn(1, 200, 16, dtype=torch.float64)

    def moved_by(position: int) -> list[int]:
        changed = x.clone()
        changed[:, position] += 1
        moved: list[int] = (module(changed) != module(x)).any(dim=2)[0].nonzero().flatten().tolist()
        return moved

    assert moved_by(1) == list(range(200))
    assert moved_by(150) == [0, 1, *range(146, 155)]


def test_global_positions_use_projections_of_their_own() -> None:
    spec = {"type": "longformer", "window": 4, "globals": 3}
    module = build_attention(spec, d_model=16, heads=H, max_length=50, causal=False)
    assert isinstance(module, Longformer)
    assert module.global_qkv is not None
    x = torch.randn(2, 50, 16)
    q, k, v = (t.unflatten(2, (H, 8)).transpose(1, 2) for t in module.global_qkv(x).chunk(3, -1))
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    wanted = module.out(full.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x)[:, :3], wanted[:, :3], rtol=0, atol=2e-6)


def test_decoders_have_no_global_positions() -> None:
    spec = {"type": "longformer", "window": 4, "globals": 3}
    module = build_attention(spec, d_model=16, heads=H, max_length=50, causal=True)
    assert {name for name, _ in module.named_parameters()} == {"qkv.weight", "out.weight"}


def test_the_cache_is_no_longer_than_the_window() -> None:
    spec = {"type": "longformer", "window": 5}
    module = build_attention(spec, d_model=16, heads=H, max_length=50, causal=True)
    _, state = module.extend(torch.randn(2, 40, 16), module.init_state(2))
    assert state.keys.shape == (2 * H, 5, 8)
    assert state.keys.untyped_storage().nbytes() == 4 * state.keys.numel()


def test_blocks_cover_every_query_once() -> None:
    cut = list(blocks(3 * BLOCK + 5, left=10, right=7, leading=2))
    assert [b.start for b in cut] == [0, BLOCK, 2 * BLOCK, 3 * BLOCK]
    assert cut[-1].stop == 3 * BLOCK + 5
    assert sum(b.queries for b in cut) == 3 * BLOCK + 5
    assert (cut[0].first, cut[0].leading) == (0, 0)
    assert (cut[1].first, cut[1].last, cut[1].leading) == (BLOCK - 10, 2 * BLOCK + 7, 2)
