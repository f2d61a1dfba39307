"""What every attention mechanism must hold: being registered means being tested here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.errors import Unsupported
from nas.models import build_attention, list_mechanisms
from nas.models.attention.base import Attention
from nas.models.mechanism import module_class
from nas.models.positions import Positions, Rotation
from search_spaces.attention import ATTENTION
from search_spaces.errors import InvalidInput
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.halting import HALTING
from search_spaces.residual import RESIDUAL

from . import mechanisms as suite
from .mechanisms import LONG, SHORT, B, D, H, Run, inputs


def slots(causal: bool | None = None) -> list[Any]:
    """Every attention variant in every slot that takes it."""
    return [
        pytest.param(v, slot, id=f"{'-'.join(map(str, v.values()))}-{'causal' if slot else 'all'}")
        for spec in ATTENTION.values()
        for v in suite.variants(spec)
        for slot in (True, False)
        if (spec.causal or not slot) and causal in (None, slot)
    ]


ENCODERS_ONLY = [name for name, spec in ATTENTION.items() if not spec.causal]

in_every_slot = pytest.mark.parametrize(("spec", "causal"), slots())
in_causal_slots = pytest.mark.parametrize(("spec", "causal"), slots(causal=True))


def attention(
    spec: dict[str, Any], causal: bool, *, max_length: int = LONG, seed: int = 0
) -> Attention[Any]:
    torch.manual_seed(seed)
    return build_attention(spec, d_model=D, heads=H, max_length=max_length, causal=causal)


def rotation(module: Attention[Any], N: int = LONG) -> Rotation | None:
    """Rotary positions where the mechanism takes them."""
    if "rotary" not in module.spec.positions:
        return None
    positions = Positions("rotary", D, N)
    return positions.rotation(module.head_width, 0, N, module.qkv.weight)


def rotated(module: Attention[Any], mask: Tensor | None = None) -> Run:
    """The module with a mask and its positions."""
    turn = rotation(module)
    return lambda x: module(x, mask, turn)


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
    suite.has_shape_and_type(rotated(attention(spec, causal).to(dtype)), dtype)


@in_every_slot
@pytest.mark.parametrize("N", [1, 2, 63, 64, 65, 129])
def test_any_length_trains(spec: dict[str, Any], causal: bool, N: int) -> None:
    module = attention(spec, causal)
    suite.all_parameters_learn(module, module(inputs(N, dtype=torch.float32)).square().sum())


@in_every_slot
def test_gradients(spec: dict[str, Any], causal: bool) -> None:
    N = 11
    module = attention(spec, causal, max_length=12).double()
    suite.gradients_are_right(module, N, rotation(module, N))


@in_causal_slots
@pytest.mark.parametrize("masked", [False, True])
def test_no_look_ahead(spec: dict[str, Any], causal: bool, masked: bool) -> None:
    module = attention(spec, causal).double()
    suite.never_looks_ahead(rotated(module, suite.few_hidden(masked)))


@in_every_slot
def test_batch_mates_do_not_matter(spec: dict[str, Any], causal: bool) -> None:
    suite.ignores_batch_mates(rotated(attention(spec, causal).double()))


@in_every_slot
def test_padding_does_not_matter(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    x, mask = inputs(), suite.padded()
    run = rotated(module, mask)
    y = run(x)
    suite.equal(run(suite.refilled(x, mask))[mask], y[mask])
    suite.equal(y[1:, :SHORT], module(x[1:, :SHORT], None, rotation(module, SHORT)))


@in_every_slot
def test_a_hole_is_not_seen(spec: dict[str, Any], causal: bool) -> None:
    x, mask = inputs(), suite.holed()
    run = rotated(attention(spec, causal).double(), mask)
    y = run(x)
    suite.equal(run(suite.refilled(x, mask))[mask], y[mask])
    assert y.isfinite().all()


@in_every_slot
def test_nothing_to_see(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal)
    mask = torch.zeros(B, LONG, dtype=torch.bool)
    mask[0] = True
    y = rotated(module, mask)(inputs(dtype=torch.float32))
    assert y.isfinite().all()
    suite.gradients_stay_finite(module, y[mask].sum())


@in_every_slot
def test_seed_decides(spec: dict[str, Any], causal: bool) -> None:
    suite.seed_decides(lambda seed: attention(spec, causal, seed=seed))


@in_every_slot
def test_safetensors(spec: dict[str, Any], causal: bool, tmp_path: Path) -> None:
    suite.survives_safetensors(lambda seed: attention(spec, causal, seed=seed), tmp_path)


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
        suite.equal(torch.stack(steps, dim=1), module(x), 1e-5)
        y, _ = module.step(x[:, :1], module.init_state(B))
        torch.testing.assert_close(y[:, 0], steps[0])


@in_causal_slots
def test_continuing_equals_forward(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    if module.spec.decoding != "none":
        suite.continues(module)


@in_causal_slots
def test_absorbing_equals_continuing(spec: dict[str, Any], causal: bool) -> None:
    module = attention(spec, causal).double()
    if module.spec.decoding == "none":
        return
    x = inputs()
    absorbed = module.absorb(x[:, :90], module.init_state(B))
    y, _ = module.extend(x[:, 90:], absorbed)
    suite.equal(y, module(x)[:, 90:], 1e-10)


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
    suite.survives_autocast(rotated(attention(spec, causal)))


@in_every_slot
@pytest.mark.parametrize(("batch", "N", "width", "heads"), [(1, 256, 64, 4), (3, 200, 32, 2)])
def test_cost(
    spec: dict[str, Any], causal: bool, batch: int, N: int, width: int, heads: int
) -> None:
    module = build_attention(spec, d_model=width, heads=heads, max_length=N, causal=causal)
    x = torch.randn(batch, N, width)
    suite.holds_its_cost(module, x, module.spec.cost(batch, N, width, heads, causal))
