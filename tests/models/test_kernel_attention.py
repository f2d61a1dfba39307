"""Linear attention and Performer: chunks against the definition, FAVOR+ against softmax."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from nas.models import build_attention
from nas.models.attention.kernel import Sums, mix_all, mix_causal, mix_plainly
from nas.models.attention.linear import PositiveElu
from nas.models.attention.performer import Performer, PositiveFeatures, orthogonal_features
from nas.models.replay import Tape, recording, replaying

H = 2


def tensors(N: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Queries, keys, values (2, N, 3, H, 6)."""
    generator = torch.Generator().manual_seed(N)
    return torch.randn(2, N, 3, H, 6, generator=generator, dtype=dtype)


def rows(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def side_by_side(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(0, (-1, H)).transpose(1, 2).flatten(2)


def omega(M: int) -> torch.Tensor:
    return orthogonal_features(M, 6, seed=1).double()


def mapped(kind: str, M: int) -> PositiveElu | PositiveFeatures:
    return PositiveElu(6) if kind == "linear" else PositiveFeatures(omega(M), H)


def by_definition(kind: str, qkv: torch.Tensor, M: int) -> tuple[torch.Tensor, ...]:
    """Features of queries and keys (P, N, M), and values."""
    q, k, v = (rows(t) for t in qkv.unbind(2))
    if kind == "linear":
        return functional.elu(q) + 1, functional.elu(k) + 1, v
    q, k = (t * 6**-0.25 for t in (q, k))
    exponent = q @ omega(M).t()
    k = k @ omega(M).t() - k.square().sum(-1, keepdim=True) / 2
    return (exponent - exponent.detach().amax(-1, keepdim=True)).exp(), k.exp(), v


def nothing(M: int) -> Sums:
    return Sums(
        torch.zeros(2 * H, M, 6, dtype=torch.float64), torch.zeros(2 * H, 1, M, dtype=torch.float64)
    )


def same_gradients(
    fast: torch.Tensor, plain: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> None:
    (g,) = torch.autograd.grad(fast.sin().sum(), x)
    (wanted,) = torch.autograd.grad(plain.sin().sum(), y)
    torch.testing.assert_close(g, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("together", [1, 2**11, 2**16])
@pytest.mark.parametrize("N", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["linear", "performer"])
def test_spans_equal_the_definition(
    kind: str, causal: bool, N: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_spaces.attention.kernel.TOGETHER", together)
    M = 6 if kind == "linear" else 10
    x, y = (tensors(N).requires_grad_() for _ in range(2))
    if causal:
        fast, _ = mix_causal(x.clone(), None, nothing(M), mapped(kind, M), 1e-9)
    else:
        fast = mix_all(x.clone(), None, mapped(kind, M), 1e-9)
    plain = side_by_side(mix_plainly(*by_definition(kind, y, M), 1e-9, causal))
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-11)
    same_gradients(fast, plain, x, y)


@pytest.mark.parametrize("causal", [True, False])
def test_features_of_padded_keys_are_nought(causal: bool) -> None:
    mask = torch.rand(2, 90, generator=torch.Generator().manual_seed(0)) < 0.7
    mask[:, 0] = True
    x, y = (tensors(90).requires_grad_() for _ in range(2))
    phi = PositiveElu(6)
    if causal:
        fast, _ = mix_causal(x.clone(), mask, nothing(6), phi, 1e-9)
    else:
        fast = mix_all(x.clone(), mask, phi, 1e-9)
    q, k, v = by_definition("linear", y, 6)
    k = k * mask.repeat_interleave(H, dim=0).unsqueeze(-1)
    plain = side_by_side(mix_plainly(q, k, v, 1e-9, causal))
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-11)
    same_gradients(fast, plain, x, y)


@pytest.mark.parametrize("N", [70, 150])
def test_gradients_through_the_past(N: int) -> None:
    x = tensors(N)
    past = [torch.rand_like(t).requires_grad_() for t in nothing(6)]

    def run(qkv: torch.Tensor, *sums: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, after = mix_causal(qkv.clone(), None, Sums(*sums), PositiveElu(6), 1e-9)
        return y, *after

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *past), fast_mode=True)


def test_linear_attention_is_elu_plus_one() -> None:
    module = build_attention({"type": "linear"}, d_model=8, heads=H, max_length=30, causal=False)
    x = torch.randn(2, 30, 8)
    q, k, v = (t.unflatten(2, (H, 4)).transpose(1, 2) for t in module.qkv(x).chunk(3, dim=-1))
    weights = (functional.elu(q) + 1) @ (functional.elu(k) + 1).transpose(2, 3)
    mixed = weights @ v / weights.sum(dim=-1, keepdim=True)
    wanted = module.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-5)


def performer(features: int, seed: int, causal: bool) -> Performer:
    torch.manual_seed(0)
    spec = {"type": "performer", "features": features}
    module = build_attention(spec, d_model=32, heads=H, max_length=64, causal=causal)
    assert isinstance(module, Performer)
    module.resample(seed)
    return module


def error(features: int, causal: bool, scale: float = 0.5) -> float:
    """Root mean square distance from softmax attention over several draws of features."""
    full = build_attention({"type": "full"}, d_model=32, heads=H, max_length=64, causal=causal)
    total = 0.0
    x = scale * torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for seed in range(12):
            module = performer(features, seed, causal)
            full.qkv.weight.copy_(module.qkv.weight)
            full.out.weight.copy_(module.out.weight)
            total += float((module(x) - full(x)).square().mean())
    return math.sqrt(total / 12)


@pytest.mark.parametrize("causal", [True, False])
def test_error_falls_with_the_root_of_the_features(causal: bool) -> None:
    few, many = error(32, causal), error(2048, causal)
    exponent = math.log(many / few) / math.log(2048 / 32)
    assert exponent == pytest.approx(-0.5, abs=0.12)


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("E", [8, 64, 256])
@pytest.mark.parametrize("N", [1, 64])
def test_weights_sum_to_one_at_usual_norms(scale: float, E: int, N: int) -> None:
    spec = {"type": "performer", "features": 64}
    module = build_attention(spec, d_model=E, heads=1, max_length=64, causal=True)
    assert isinstance(module, Performer)
    qkv = scale * torch.randn(3, N, 3, 1, E)
    qkv[:, :, 2] = 1
    mixed = mix_all(qkv, None, module._map(qkv.dtype), module.epsilon)
    torch.testing.assert_close(mixed, torch.ones(3, N, E), rtol=0, atol=1e-4)


def test_a_key_along_a_feature_stays_finite() -> None:
    module = performer(64, 0, causal=True)
    qkv = (2 * module.omega * 16**0.25).view(1, 64, 1, 1, 16).repeat(2, 1, 3, H, 1)
    qkv[:, :, 2] = 1
    mixed = mix_all(qkv, None, module._map(qkv.dtype), module.epsilon)
    torch.testing.assert_close(mixed, torch.ones(2, 64, 32))


@pytest.mark.parametrize("causal", [True, False])
def test_large_norms_stay_finite(causal: bool) -> None:
    module = performer(64, 0, causal)
    x = (20 * torch.randn(2, 64, 32)).requires_grad_()
    y = module(x)
    y.square().sum().backward()
    assert x.grad is not None
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert module(20 * x).isfinite().all()


def test_features_come_from_their_seed() -> None:
    assert torch.equal(performer(40, 3, True).omega, performer(40, 3, True).omega)
    assert not torch.equal(performer(40, 3, True).omega, performer(40, 4, True).omega)


def test_features_are_orthogonal_gaussians() -> None:
    omega = orthogonal_features(4096, 16, seed=0).double()
    block = omega[:16]
    angles = block @ block.t() / (block.norm(dim=1).unsqueeze(1) * block.norm(dim=1))
    torch.testing.assert_close(angles, torch.eye(16).double(), rtol=0, atol=1e-6)
    assert float(omega.mean()) == pytest.approx(0, abs=0.02)
    assert float(omega.square().mean()) == pytest.approx(1, abs=0.03)


def test_state_has_one_size() -> None:
    module = performer(24, 0, causal=True)
    _, early = module.extend(torch.randn(2, 3, 32), module.init_state(2))
    _, late = module.extend(torch.randn(2, 64, 32), early)
    assert early.products.shape == late.products.shape == (2 * H, 24, 16)


def redrawing(every: int = 3, seed: int = 5) -> Performer:
    torch.manual_seed(0)
    spec = {"type": "performer", "features": 24, "redraw": every}
    module = build_attention(spec, d_model=32, heads=H, max_length=64, causal=False)
    assert isinstance(module, Performer)
    module.resample(seed)
    return module


def draws(module: Performer, passes: int) -> list[torch.Tensor]:
    """The features of each of the next training passes."""
    drawn = []
    for _ in range(passes):
        module(torch.randn(1, 4, 32))
        drawn.append(module.omega.clone())
    return drawn


def test_features_are_redrawn_every_few_training_passes() -> None:
    module = redrawing(every=3)
    first = module.omega.clone()
    drawn = draws(module, 9)
    for n, omega in enumerate(drawn):
        assert torch.equal(omega, drawn[n // 3 * 3])
    assert torch.equal(drawn[0], first)
    assert not torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[3], drawn[6])


def test_features_are_never_redrawn_outside_training_or_unasked() -> None:
    module = redrawing(every=1).eval()
    assert all(torch.equal(module.omega, omega) for omega in draws(module, 3))
    assert int(module.passes) == 0
    module = performer(24, 0, causal=False)
    assert all(torch.equal(module.omega, omega) for omega in draws(module, 3))
    assert set(module.state_dict()) == {"qkv.weight", "out.weight", "omega"}


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_resumed_training_draws_the_same(stop: int) -> None:
    whole = draws(redrawing(), 9)
    module, resumed = redrawing(), redrawing(seed=99)
    draws(module, stop)
    resumed.load_state_dict(module.state_dict())
    for omega, wanted in zip(draws(resumed, 9 - stop), whole[stop:], strict=True):
        assert torch.equal(omega, wanted)


def test_a_pass_that_is_made_again_has_its_own_features() -> None:
    module = redrawing(every=2)
    x, tapes, outputs = torch.randn(2, 30, 32), [], []
    for _ in range(5):
        tape: Tape = []
        with recording(tape):
            outputs.append(module(x))
        tapes.append(tape)
    present = module.omega.clone()
    assert not torch.equal(outputs[1], outputs[2])
    for tape, wanted in zip(reversed(tapes), reversed(outputs), strict=True):
        with replaying(tape):
            assert torch.equal(module(x), wanted)
    assert torch.equal(module.omega, present)
    assert int(module.passes) == 5
