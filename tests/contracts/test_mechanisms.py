"""What every mechanism must hold, whatever it is: being registered means being tested here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nas.errors import Unsupported
from nas.measure.flops import count_flops
from nas.measure.memory import LiveBytes
from nas.measure.parameters import count_parameters
from nas.models import build_attention, build_feedforward, list_mechanisms
from nas.models.attention.base import Attention
from nas.models.feedforward.base import FeedForward
from nas.models.mechanism import module_class
from nas.models.positions import Positions, Rotation
from search_spaces.attention import ATTENTION
from search_spaces.errors import InvalidInput
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.halting import HALTING
from search_spaces.residual import RESIDUAL
from search_spaces.values import Spec

B, D, H = 2, 16, 2
LONG = 150  # more than two blocks or chunks, and ragged


def variants(spec: type[Spec]) -> Iterator[dict[str, Any]]:
    """The defaults, and the smallest and the largest value of every hyperparameter."""
    domains = {name: d.values for name, d in spec.hyperparameters().items()}
    if "queries_per_key" in domains:  # groups must divide the heads
        domains["queries_per_key"] = (1, H)
    yield {"type": spec.name()}
    if domains:
        yield {"type": spec.name(), **{name: values[0] for name, values in domains.items()}}
        yield {"type": spec.name(), **{name: values[-1] for name, values in domains.items()}}


def slots(causal: bool | None = None) -> list[Any]:
    """Every attention variant in every slot that takes it."""
    return [
        pytest.param(v, slot, id=f"{'-'.join(map(str, v.values()))}-{'causal' if slot else 'all'}")
        for spec in ATTENTION.values()
        for v in variants(spec)
        for slot in (True, False)
        if (spec.causal or not slot) and causal in (None, slot)
    ]


ENCODERS_ONLY = [name for name, spec in ATTENTION.items() if not spec.causal]
FEEDFORWARDS = [
    pytest.param(v, id="-".join(map(str, v.values())))
    for spec in FEEDFORWARD.values()
    for v in variants(spec)
]

in_every_slot = pytest.mark.parametrize(("spec", "causal"), slots())
in_causal_slots = pytest.mark.parametrize(("spec", "causal"), slots(causal=True))


def for_each_feedforward(test: Callable[..., None]) -> Callable[..., None]:
    """Every feed-forward variant in both kinds of slot."""
    each = pytest.mark.parametrize("spec", FEEDFORWARDS)
    slot = pytest.mark.parametrize("causal", [True, False], ids=["causal", "all"])
    return each(slot(test))


def attention(
    spec: dict[str, Any], causal: bool, *, max_length: int = LONG, seed: int = 0
) -> Attention[Any]:
    torch.manual_seed(seed)
    return build_attention(spec, d_model=D, heads=H, max_length=max_length, causal=causal)


def feedforward(
    spec: dict[str, Any], causal: bool, *, max_length: int = LONG, seed: int = 0
) -> FeedForward[Any]:
    torch.manual_seed(seed)
    return build_feedforward(spec, d_model=D, max_length=max_length, causal=causal)


def inputs(N: int = LONG, *, dtype: torch.dtype = torch.float64, batch: int = B) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, N, D, generator=generator, dtype=torch.float64).to(dtype)


def rotation(module: Attention[Any], N: int = LONG) -> Rotation | None:
    """Rotary positions where the mechanism takes them."""
    if "rotary" not in module.spec.positions:
        return None
    positions = Positions("rotary", D, N)
    return positions.rotation(module.head_width, 0, N, module.qkv.weight)


@pytest.mark.parametrize("registry", [ATTENTION, FEEDFORWARD, HALTING, RESIDUAL])
def test_every_spec_has_a_module(registry: Any) -> None:
    assert [module_class(spec).__name__ for spec in registry.values()]


def test_names() -> None:
    assert list_mechanisms("attention") == list(ATTENTION)
    assert list_mechanisms() == [*ATTENTION, *FEEDFORWARD, *HALTING, *RESIDUAL]
    with pytest.raises(InvalidInput, match="no kind"):
        list_mechanisms("attentions")


@in_every_slot
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_type(spec: dict[str, Any], causal: bool, dtype: torch.dtype) -> None:
    module = attention(spec, causal).to(dtype)
    y = module(inputs(dtype=dtype), None, rotation(module))
    assert y.shape == (B, LONG, D)
    assert y.dtype == dtype
    assert y.isfinite().all()


@in_every_slot
@pytest.mark.parametrize("N", [1, 2, 63, 64, 65, 129])
def test_any_length_trains(spec: dict[str, Any], causal: bool, N: int) -> None:
    module = attention(spec, causal)
    module(inputs(N, dtype=torch.float32)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@in_every_slot
def test_gradients(spec: dict[str, Any], causal: bool) -> None:
    N = 11
    module = attention(spec, causal, max_length=12).double()
    names, parameters = zip(*module.named_parameters(), strict=True)
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[1, 4:6] = False  # a hole, so that the masked form is taken in causal slots as well
    turn = rotation(module, N)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        y: Tensor = torch.func.functional_call(module, state, (x, mask, turn))
        return y

    assert torch.autograd.gradcheck(run, (inputs(N).requires_grad_(), *parameters), fast_mode=True)


@in_causal_slots
@pytest.mark.parametrize("masked", [False, True])
def test_no_look_ahead(spec: dict[str, Any], causal: bool, masked: bool) -> None:
    module = attention(spec, causal).double()
    mask = torch.ones(B, LONG, dtype=torch.bool)
    mask[0, 3:7] = not masked
    x = inputs()
    before = module(x, mask, rotation(module))
    for t in (1, 64, 100, LONG - 1):
        changed = x.clone()
        changed[:, t:] = 10 * torch.randn_like(x[:, t:])
        assert torch.equal(module(changed, mask, rotation(module))[:, :t], before[:, :t])


@in_every_slot
def test_batch_mates_do_not_matter(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    x = inputs(batch=3)
    alone = torch.cat([module(x[i : i + 1], None, rotation(module)) for i in range(3)])
    torch.testing.assert_close(module(x, None, rotation(module)), alone, rtol=0, atol=1e-12)


@in_every_slot
def test_padding_does_not_matter(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    short, N = 70, LONG
    x = inputs()
    mask = torch.arange(N).expand(B, N) < torch.tensor([[N], [short]])
    turn = rotation(module)
    y = module(x, mask, turn)
    refilled = torch.where(mask.unsqueeze(-1), x, 100 * torch.randn_like(x))
    torch.testing.assert_close(module(refilled, mask, turn)[mask], y[mask], rtol=0, atol=1e-12)
    alone = module(x[1:, :short], None, rotation(module, short))
    torch.testing.assert_close(y[1:, :short], alone, rtol=0, atol=1e-12)


@in_every_slot
def test_a_hole_is_not_seen(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    x = inputs()
    mask = torch.ones(B, LONG, dtype=torch.bool)
    mask[0, 20:90] = False
    mask[1, :80] = False
    y = module(x, mask, rotation(module))
    refilled = torch.where(mask.unsqueeze(-1), x, 100 * torch.randn_like(x))
    again = module(refilled, mask, rotation(module))
    torch.testing.assert_close(again[mask], y[mask], rtol=0, atol=1e-12)
    assert y.isfinite().all()


@in_every_slot
def test_nothing_to_see(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal)
    mask = torch.zeros(B, LONG, dtype=torch.bool)
    mask[0] = True
    y = module(inputs(dtype=torch.float32), mask, rotation(module))
    y[mask].sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@in_every_slot
def test_seed_decides(spec: dict[str, Any], causal: bool) -> None:
    first, again, other = (attention(spec, causal, seed=s) for s in (7, 7, 8))
    x = inputs(dtype=torch.float32)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert torch.equal(first(x), first(x))


@in_every_slot
def test_safetensors(spec: dict[str, Any], causal: bool, tmp_path: Path) -> None:
    module, other = attention(spec, causal, seed=1), attention(spec, causal, seed=2)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = inputs(dtype=torch.float32)
    assert torch.equal(module(x), other(x))


@in_causal_slots
def test_step_equals_forward(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal)
    if module.spec.decoding == "none":
        with pytest.raises(Unsupported, match=module.spec.type):
            module.init_state(B)
        return
    x = inputs(dtype=torch.float32)
    state, steps = None, []
    with torch.no_grad():
        for t in range(LONG):
            y, state = module.step(x[:, t], state)
            steps.append(y)
        torch.testing.assert_close(torch.stack(steps, dim=1), module(x), rtol=0, atol=1e-5)
        y, _ = module.step(x[:, :1], module.init_state(B))
        torch.testing.assert_close(y[:, 0], steps[0])


@in_causal_slots
def test_continuing_equals_forward(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    if module.spec.decoding == "none":
        return
    x = inputs().requires_grad_()
    whole = module(x)
    (wanted,) = torch.autograd.grad(whole.sin().sum(), x)
    state, pieces = module.init_state(B), []
    for piece in x.split([1, 70, 2, LONG - 73], dim=1):
        y, state = module.extend(piece, state)
        pieces.append(y)
    y = torch.cat(pieces, dim=1)
    torch.testing.assert_close(y, whole, rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(y.sin().sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


@in_causal_slots
def test_absorbing_equals_continuing(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    if module.spec.decoding == "none":
        return
    x = inputs()
    absorbed = module.absorb(x[:, :90], module.init_state(B))
    y, _ = module.extend(x[:, 90:], absorbed)
    torch.testing.assert_close(y, module(x)[:, 90:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ENCODERS_ONLY)
def test_encoder_only(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is for encoders"):
        attention({"type": name}, causal=True)


@pytest.mark.parametrize("name", list(ATTENTION))
def test_an_encoder_does_not_decode(name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        attention({"type": name}, causal=False).step(inputs()[:, 0])


@in_every_slot
def test_autocast(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal)
    x = inputs(dtype=torch.float32).requires_grad_()
    exact = module(x, None, rotation(module))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module(x, None, rotation(module))
    rounded.float().square().sum().backward()
    error = (rounded.float() - exact).square().mean().sqrt() / exact.std()
    assert error < 0.05
    assert x.grad is not None
    assert x.grad.isfinite().all()


@in_every_slot
@pytest.mark.parametrize(("batch", "N", "width", "heads"), [(1, 256, 64, 4), (3, 200, 32, 2)])
def test_cost(
    spec: dict[str, Any], causal: bool, batch: int, N: int, width: int, heads: int
) -> None:
    module = build_attention(spec, d_model=width, heads=heads, max_length=N, causal=causal)
    x = torch.randn(batch, N, width)
    holds_its_cost(module, x, lambda: module(x), module.spec.cost(batch, N, width, heads, causal))


def holds_its_cost(module: nn.Module, x: Tensor, run: Callable[[], Tensor], cost: Any) -> None:
    assert cost.parameters == count_parameters(module)
    assert cost.flops_low <= cost.flops
    assert cost.flops == pytest.approx(count_flops(run), rel=0.01)
    with LiveBytes() as inference, torch.no_grad():
        run()
    assert cost.live_bytes == pytest.approx(inference.peak, rel=0.1)
    x.requires_grad_()
    with LiveBytes() as training:
        y = run()
    saved = training.live - y.untyped_storage().nbytes()
    assert cost.saved_bytes == pytest.approx(saved, rel=0.1)


@for_each_feedforward
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_feedforward_shape_and_type(spec: dict[str, Any], causal: bool, dtype: torch.dtype) -> None:
    module = feedforward(spec, causal).to(dtype)
    y = module(inputs(dtype=dtype))
    assert y.shape == (B, LONG, D)
    assert y.dtype == dtype
    assert y.isfinite().all()


@for_each_feedforward
@pytest.mark.parametrize("N", [1, 2, 63, 129])
def test_feedforward_any_length_trains(spec: dict[str, Any], causal: bool, N: int) -> None:
    module = feedforward(spec, causal)
    y, auxiliary = module.run(inputs(N, dtype=torch.float32))
    assert (auxiliary is None) == (module.auxiliary is None)
    loss = y.square().sum()
    (loss if auxiliary is None else loss + auxiliary).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@for_each_feedforward
def test_feedforward_is_position_wise_where_it_says_so(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal).double()
    if not module.spec.position_wise:
        return
    x = inputs()
    changed = x.clone()
    changed[:, 40] += 1
    moved = (module(changed) - module(x)).abs().amax(dim=(0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [40]


@for_each_feedforward
def test_feedforward_gradients(spec: dict[str, Any], causal: bool) -> None:
    N = 11
    module = feedforward(spec, causal, max_length=12).double()
    names, parameters = zip(*module.named_parameters(), strict=True)
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[1, 4:6] = False

    def run(x: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        y: Tensor = torch.func.functional_call(module, state, (x, mask))
        return y

    assert torch.autograd.gradcheck(run, (inputs(N).requires_grad_(), *parameters), fast_mode=True)


@pytest.mark.parametrize("spec", FEEDFORWARDS)
@pytest.mark.parametrize("masked", [False, True])
def test_feedforward_does_not_look_ahead(spec: dict[str, Any], masked: bool) -> None:
    module = feedforward(spec, causal=True).double()
    mask = torch.ones(B, LONG, dtype=torch.bool)
    mask[0, 3:7] = not masked
    x = inputs()
    before = module(x, mask)
    for t in (1, 64, 100, LONG - 1):
        changed = x.clone()
        changed[:, t:] = 10 * torch.randn_like(x[:, t:])
        assert torch.equal(module(changed, mask)[:, :t], before[:, :t])


@for_each_feedforward
def test_feedforward_batch_mates_do_not_matter(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal).double()
    x = inputs(batch=3)
    alone = torch.cat([module(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(module(x), alone, rtol=0, atol=1e-12)


@for_each_feedforward
def test_feedforward_padding_does_not_matter(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal).double()
    short, N = 70, LONG
    x = inputs()
    mask = torch.arange(N).expand(B, N) < torch.tensor([[N], [short]])
    y, auxiliary = module.run(x, mask)
    refilled = torch.where(mask.unsqueeze(-1), x, 100 * torch.randn_like(x))
    again, auxiliary_again = module.run(refilled, mask)
    torch.testing.assert_close(again[mask], y[mask], rtol=0, atol=1e-12)
    torch.testing.assert_close(auxiliary_again, auxiliary, rtol=0, atol=1e-12)
    torch.testing.assert_close(y[1:, :short], module(x[1:, :short]), rtol=0, atol=1e-12)


@for_each_feedforward
def test_feedforward_does_not_see_a_hole(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal).double()
    x = inputs()
    mask = torch.ones(B, LONG, dtype=torch.bool)
    mask[0, 20:90] = False
    mask[1, :80] = False
    y = module(x, mask)
    refilled = torch.where(mask.unsqueeze(-1), x, 100 * torch.randn_like(x))
    torch.testing.assert_close(module(refilled, mask)[mask], y[mask], rtol=0, atol=1e-12)
    assert y.isfinite().all()


@for_each_feedforward
def test_feedforward_has_nothing_to_see(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal)
    x = inputs(dtype=torch.float32)
    nothing = torch.zeros(B, LONG, dtype=torch.bool)
    some = nothing.clone()
    some[0] = True
    for mask in (some, nothing):
        y, auxiliary = module.run(x, mask)
        assert y.isfinite().all()
        loss = y[mask].sum()
        (loss if auxiliary is None else loss + auxiliary).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@for_each_feedforward
def test_feedforward_seed_decides(spec: dict[str, Any], causal: bool) -> None:
    first, again, other = (feedforward(spec, causal, seed=s) for s in (7, 7, 8))
    x = inputs(dtype=torch.float32)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert torch.equal(first(x), first(x))


@for_each_feedforward
def test_feedforward_safetensors(spec: dict[str, Any], causal: bool, tmp_path: Path) -> None:
    module, other = feedforward(spec, causal, seed=1), feedforward(spec, causal, seed=2)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = inputs(dtype=torch.float32)
    assert torch.equal(module(x), other(x))


@pytest.mark.parametrize("spec", FEEDFORWARDS)
def test_feedforward_step_equals_forward(spec: dict[str, Any]) -> None:
    module = feedforward(spec, causal=True)
    x = inputs(dtype=torch.float32)
    state, steps = module.init_state(B), []
    with torch.no_grad():
        for t in range(LONG):
            y, state = module.extend(x[:, t : t + 1], state)
            steps.append(y)
        torch.testing.assert_close(torch.cat(steps, dim=1), module(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("spec", FEEDFORWARDS)
def test_feedforward_continuing_equals_forward(spec: dict[str, Any]) -> None:
    module = feedforward(spec, causal=True).double()
    x = inputs().requires_grad_()
    whole = module(x)
    (wanted,) = torch.autograd.grad(whole.sin().sum(), x)
    state, pieces = module.init_state(B), []
    for piece in x.split([1, 70, 2, LONG - 73], dim=1):
        y, state = module.extend(piece, state)
        pieces.append(y)
    y = torch.cat(pieces, dim=1)
    torch.testing.assert_close(y, whole, rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(y.sin().sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


@for_each_feedforward
def test_feedforward_autocast(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal)
    x = inputs(dtype=torch.float32).requires_grad_()
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module(x)
    rounded.float().square().sum().backward()
    error = (rounded.float() - exact).square().mean().sqrt() / exact.std()
    assert error < 0.05
    assert x.grad is not None
    assert x.grad.isfinite().all()


@for_each_feedforward
def test_feedforward_last_projections_write_the_output(spec: dict[str, Any], causal: bool) -> None:
    module = feedforward(spec, causal)
    x = inputs(dtype=torch.float32)
    y = module(x)
    with torch.no_grad():
        for projection in module.last_projections():
            projection.weight.mul_(0.5)
    torch.testing.assert_close(module(x), 0.5 * y)


@for_each_feedforward
@pytest.mark.parametrize(("batch", "N", "width"), [(2, 100, 32), (1, 256, 48)])
def test_feedforward_cost(
    spec: dict[str, Any], causal: bool, batch: int, N: int, width: int
) -> None:
    module = build_feedforward(spec, d_model=width, max_length=N, causal=causal)
    x = torch.randn(batch, N, width)
    cost = module.spec.cost(batch, N, width, causal)
    if cost.flops_low == cost.flops:
        holds_its_cost(module, x, lambda: module(x), cost)
    else:
        stays_within_its_cost(module, x, lambda: module(x), cost)
    assert 0 < module.spec.active_parameters(width, causal) <= cost.parameters


def stays_within_its_cost(
    module: nn.Module, x: Tensor, run: Callable[[], Tensor], cost: Any
) -> None:
    """Where the data decide how much is done: no more than the most, no less than the least."""
    assert cost.parameters == count_parameters(module)
    assert 0.99 * cost.flops_low <= count_flops(run) <= 1.01 * cost.flops
    with LiveBytes() as inference, torch.no_grad():
        run()
    assert inference.peak <= 1.1 * cost.live_bytes
    x.requires_grad_()
    with LiveBytes() as training:
        y = run()
    assert training.live - y.untyped_storage().nbytes() <= 1.1 * cost.saved_bytes
