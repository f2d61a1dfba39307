"""Mixture of experts: who goes where, who is dropped, and what keeps the load even."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.measure.flops import count_flops
from nas.measure.memory import LiveBytes
from nas.models import build_feedforward, build_model
from nas.models.feedforward.mixture import Mixture
from nas.models.replay import recording, replaying
from search_spaces.architecture import Architecture
from search_spaces.feedforward.mixture import MixtureFeedForward

D, N = 16, 40


def mixture(causal: bool = True, max_length: int = N, **fields: Any) -> Mixture:
    torch.manual_seed(0)
    spec = {"type": "mixture", **fields}
    module = build_feedforward(spec, d_model=D, max_length=max_length, causal=causal)
    assert isinstance(module, Mixture)
    return module


def sent(module: Mixture, choice: Tensor, margin: float = 4.0) -> Tensor:
    """Tokens (B, N, D) that the router, changed for this, sends to the experts chosen (B, N)."""
    X = module.spec.experts
    with torch.no_grad():
        module.router.weight.copy_(torch.eye(X, module.router.in_features))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*choice.shape, module.router.in_features, generator=generator)
    x[..., :X] = margin * functional.one_hot(choice, X)
    return x.to(module.router.weight.dtype)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("capacity", [1.0, 1.25, 8.0])
def test_sorted_dispatch_equals_the_definition(causal: bool, capacity: float) -> None:
    module = mixture(causal, experts=8, capacity=capacity).double()
    mask = torch.ones(3, N, dtype=torch.bool)
    mask[1, 5:20] = False
    mask[2, 1:] = False
    x = torch.randn(3, N, D, dtype=torch.float64, requires_grad=True)
    wanted = (x, *module.parameters())
    fast = module(x, mask)
    plain = module.dispatch_plainly(x, module._route(x, mask, None))
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    for g, h in zip(
        torch.autograd.grad(fast.sin().sum(), wanted),
        torch.autograd.grad(plain.sin().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(g, h, rtol=0, atol=1e-12)


def test_a_token_gets_its_expert_times_its_weight() -> None:
    module = mixture(experts=4, capacity=4.0)
    x = torch.randn(1, N, D)
    p = module.router(x).softmax(-1)
    for t in range(N):
        best = int(p[0, t].argmax())
        wanted = p[0, t, best] * module.experts[best](x[0, t])
        torch.testing.assert_close(module(x)[0, t], wanted)


def test_one_expert_is_the_dense_block() -> None:
    module = mixture(experts=1, capacity=1.0)
    dense = build_feedforward({"type": "dense"}, d_model=D, max_length=N, causal=True)
    dense.load_state_dict(module.experts[0].state_dict())
    x = torch.randn(2, N, D)
    torch.testing.assert_close(module(x), dense(x))


@pytest.mark.parametrize("experts", [2, 4, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_auxiliary_loss_at_even_load_and_at_collapse(experts: int, masked: bool) -> None:
    module = mixture(experts=experts)
    mask = None
    if masked:  # padding would go to expert 0
        mask = torch.arange(2 * N) < N
        mask = mask.expand(3, -1)
    even = torch.zeros(3, 2 * N if masked else N, dtype=torch.int64)
    even[:, :N] = torch.arange(N) % experts
    _, loss = module.run(sent(module, even), mask)
    assert loss.item() == pytest.approx(0.01, rel=1e-5)
    _, loss = module.run(sent(module, torch.ones_like(even), margin=50.0), mask)
    assert loss.item() == pytest.approx(0.01 * experts, rel=1e-5)


def test_auxiliary_loss_of_a_router_that_cannot_tell() -> None:
    module = mixture(experts=4, auxiliary=0.5)
    torch.nn.init.zeros_(module.router.weight)
    _, loss = module.run(torch.randn(2, N, D))
    assert loss.item() == pytest.approx(0.5)


@pytest.mark.parametrize("residual", ["pre_norm", "reversible"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_counts_in_no_model(causal: bool, residual: str) -> None:
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "mixture"}, "heads": 2}
    fields = {"width": D, "layers": [layer, layer], "residual": {"type": residual}}
    torch.manual_seed(0)
    net = build_model(
        Architecture.model_validate(fields),
        vocab_size=20,
        num_outputs=20,
        max_length=N,
        causal=causal,
        head="token",
    ).double()
    tokens = torch.randint(20, (1, N))
    short = N // 4
    mask = torch.arange(N).expand(1, -1) < short
    alone, padded = net(tokens[:, :short]), net(tokens, mask)
    torch.testing.assert_close(padded.aux, alone.aux, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.logits[:, :short], alone.logits, rtol=0, atol=1e-12)


def test_auxiliary_loss_evens_out_the_load() -> None:
    module = mixture(experts=4).double()
    x = torch.randn(4, N, D, dtype=torch.float64)
    with torch.no_grad():
        x[..., 0] = 1
        module.router.weight[2, 0] = 4
    optimizer = torch.optim.SGD([module.router.weight], lr=10.0)
    losses = []
    for _ in range(200):
        _, loss = module.run(x)
        (module.router.weight.grad,) = torch.autograd.grad(loss, [module.router.weight])
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.03
    assert losses[-1] < 0.011


@pytest.mark.parametrize("through_loss", [False, True])
def test_the_router_learns(through_loss: bool) -> None:
    module = mixture()
    y, auxiliary = module.run(torch.randn(2, N, D))
    loss = auxiliary if through_loss else y.square().sum()
    (gradient,) = torch.autograd.grad(loss, [module.router.weight])
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_dropped_tokens_are_the_identity(causal: bool) -> None:
    module = mixture(causal, experts=4, capacity=1.0)
    x = sent(module, torch.full((2, N), 3))
    y = x + module(x)  # as it stands in a residual layer
    room = N // 4
    assert (y[:, :room] != x[:, :room]).any(dim=-1).all()
    assert torch.equal(y[:, room:], x[:, room:])


@pytest.mark.parametrize(("causal", "room"), [(False, 10), (True, 20)])
def test_room_is_by_valid_positions_or_by_the_greatest_length(causal: bool, room: int) -> None:
    module = mixture(causal, max_length=80, experts=4, capacity=1.0)
    x = sent(module, torch.full((2, 60), 1))
    mask = torch.ones(2, 60, dtype=torch.bool)
    mask[:, 1:40:2] = False  # 40 of 60 are valid: padding takes no room
    taken = module(x, mask).abs().sum(dim=-1) > 0
    assert taken.sum(dim=1).tolist() == [room, room]
    first = mask[0].nonzero().flatten()[:room]
    assert taken[0].nonzero().flatten().tolist() == first.tolist()


@pytest.mark.parametrize("t", [1, 4, 16, 39])
def test_how_many_follow_does_not_move_a_bit(t: int) -> None:
    """Experts get few rows here, and other numbers of them when what follows goes elsewhere."""
    for seed in range(10):
        module = mixture(experts=8).double()
        x = torch.randn(1, N, D, generator=torch.Generator().manual_seed(seed)).double()
        before = module(x)
        changed = x.clone()
        changed[:, t:] = x[:, -1:] + 1
        assert torch.equal(module(changed)[:, :t], before[:, :t])


def test_decoding_remembers_who_was_taken() -> None:
    module = mixture(experts=2, capacity=1.0, max_length=8)
    x = sent(module, torch.tensor([[0, 0, 0, 0, 0, 1, 0, 1]]))
    state, taken = module.init_state(1), []
    for t in range(8):
        y, state = module.extend(x[:, t : t + 1], state)
        taken.append(bool(y.any()))
    assert taken == [True] * 4 + [False, True, False, True]
    assert state.tolist() == [[6, 2]]


def test_close_calls_go_the_same_way_in_half_precision() -> None:
    module = mixture(experts=8, capacity=8.0)
    x = torch.randn(4, N, D)
    exact = module._route(x, None, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module._route(x, None, None)
    assert rounded.weights.dtype == torch.float32
    assert torch.equal(exact.weights, rounded.weights)


def test_choices_are_replayed() -> None:
    module = mixture(experts=4, capacity=4.0)
    x = torch.randn(1, N, D)
    tape: list[Tensor] = []
    with recording(tape):
        module(x)
    with replaying([(tape[0] + 1) % 4]):
        y = module(x)
    p = module.router(x).softmax(-1)
    t, other = 3, int((tape[0][0, 3] + 1) % 4)
    torch.testing.assert_close(y[0, t], p[0, t, other] * module.experts[other](x[0, t]))


def test_an_exported_graph_has_no_shapes_that_depend_on_data() -> None:
    module = mixture(causal=False, experts=4, capacity=1.0).eval()
    x, other = torch.randn(2, 1, N, D)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(other), module(other))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"experts": 2, "capacity": 1.0, "ratio": 1.0},
        {"experts": 8, "capacity": 2.0},
        {"experts": 4, "capacity": 4.0, "ratio": 2.0},
    ],
    ids=str,
)
def test_cost_at_its_most_and_at_its_least(causal: bool, fields: dict[str, Any]) -> None:
    spec = MixtureFeedForward(**fields)
    B, length, width = 2, 200, 32
    module = build_feedforward(spec, d_model=width, max_length=length, causal=causal)
    assert isinstance(module, Mixture)
    cost = spec.cost(B, length, width, causal)
    full = min(length, spec.rows(length))
    least = torch.full((B, length), spec.experts - 1)
    even = (torch.arange(length) % spec.experts).expand(B, -1)
    # the last expert full, and room for all others in the rest
    fullest = least.clone()
    fullest[:, : length - full] = torch.arange(length - full) % max(1, spec.experts - 1)
    x = sent(module, least)
    mask = None if causal else torch.arange(length).expand(B, -1) < 1
    assert cost.flops_low == pytest.approx(count_flops(module, x, mask), rel=0.01)
    x = sent(module, fullest)
    with LiveBytes() as inference, torch.no_grad():
        module(x)
    assert cost.live_bytes == pytest.approx(inference.peak, rel=0.1)
    x = sent(module, even)
    assert cost.flops == pytest.approx(count_flops(module, x), rel=0.01)
    x.requires_grad_()
    with LiveBytes() as training:
        y = module(x)
    saved = training.live - y.untyped_storage().nbytes()
    assert cost.saved_bytes == pytest.approx(saved, rel=0.1)


def test_a_token_meets_the_router_and_one_expert() -> None:
    module = mixture(experts=8)
    expert = sum(p.numel() for p in module.experts[0].parameters())
    assert module.spec.active_parameters(D) == module.router.weight.numel() + expert
    dense = build_feedforward({"type": "dense"}, d_model=D, max_length=N, causal=True).spec
    assert dense.active_parameters(D) == dense.cost(1, 1, D, True).parameters
    assert math.isclose(module.spec.cost(1, 1, D, True).parameters, 8 * expert + 8 * D)
