"""The arithmetic of whole models against the models themselves, over random architectures."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from nas.catalogue.metrics import METRICS
from nas.measure.flops import count_flops, count_training_flops
from nas.measure.memory import LiveBytes
from nas.measure.parameters import count_parameters
from nas.models import Transformer, build_model
from nas.models.halting.exits import Exiting
from nas.training.objectives import training_loss
from nas.training.optimizer import build_optimizer
from search_spaces import load_space
from search_spaces.architecture import Architecture
from search_spaces.model_cost import ModelCost, model_cost

SPACES = ["efficient-lm", "efficient-encoder", "tiny"]
B, N, V, OUTPUTS = 2, 192, 64, 64


def pair(arch: Architecture, causal: bool, head: str) -> tuple[Transformer, ModelCost]:
    shape = {"vocab_size": V, "num_outputs": OUTPUTS, "causal": causal, "head": head}
    cost = model_cost(arch, batch_size=B, sequence_length=N, **shape)  # type: ignore[arg-type]
    net = build_model(arch, max_length=N, **shape)  # type: ignore[arg-type]
    return net, cost


def halt(net: Transformer, bias: float) -> None:
    """Make every position halt at once, or never."""
    halting = net.halting
    if isinstance(halting, Exiting):
        halting.lets_go = lambda evidence: torch.full_like(evidence, bias > 0).bool()  # type: ignore[method-assign]
    elif net.arch.halting.adaptive:
        torch.nn.init.zeros_(halting.unit.weight)
        torch.nn.init.constant_(halting.unit.bias, bias)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("head", ["token", "pooled"])
def test_costs_equal_the_model(name: str, head: str) -> None:
    space = load_space(name)
    rng = random.Random(0)
    for _ in range(12):
        arch = space.sample(rng)
        holds(*pair(arch, space.causal, head))


@pytest.mark.parametrize("name", ["survey-lm", "survey-encoder"])
def test_training_flops_equal_those_of_random_mixtures_of_mechanisms(name: str) -> None:
    space = load_space(name)
    rng = random.Random(0)
    for i in range(40):
        arch = space.sample(rng)
        net, cost = pair(arch, space.causal, "pooled" if i % 2 else "token")
        assert cost.parameters == count_parameters(net)
        halt(net, -20.0)
        trained = count_training_flops(lambda net=net: loss_of(net))
        # where experts are, the data decide how much is done, up to the worst case
        exact = not any(layer.feedforward.type == "mixture" for layer in arch.layers)
        assert (0.99 if exact else 0.8) * cost.training_flops <= trained
        assert trained <= 1.01 * cost.training_flops


def loss_of(net: Transformer) -> Tensor:
    """Of a random batch."""
    out = net(torch.randint(V, (B, N)))
    return training_loss(out, torch.randint(OUTPUTS, out.logits.shape[:-1]))


def test_decoding_keeps_what_the_arithmetic_says() -> None:
    space = load_space("survey-lm")
    rng = random.Random(1)
    for _ in range(4):
        net, cost = pair(space.sample(rng), True, "token")
        net.eval()
        state = net.init_state(1)
        with torch.no_grad():
            for _ in range(N):
                _, state = net.step(torch.zeros(1, dtype=torch.int64), state)
        assert cost.decoding_memory_mb is not None
        weights = 4 * cost.parameters
        assert cost.decoding_memory_mb * 1e6 == pytest.approx(weights + held(state.layers))


def held(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.nbytes
    return 0 if state is None else sum(held(part) for part in state)


@pytest.mark.parametrize(("causal", "head"), [(False, "token"), (True, "pooled")])
def test_what_does_not_decode_has_no_memory_for_it(causal: bool, head: str) -> None:
    _, cost = pair(load_space("tiny").sample(0), causal, head)
    assert "decoding_memory_mb" not in cost.metrics()


def test_unshared_parameters_are_those_of_the_cycle_rolled_out() -> None:
    layers = [
        {"attention": {"type": "full"}, "feedforward": {"type": "dense"}},
        {"attention": {"type": "linear"}, "feedforward": {"type": "gated"}},
    ]
    shared, rolled_out = (
        pair(Architecture.model_validate({"width": 32, **fields}), True, "token")
        for fields in ({"layers": layers, "repeats": 3}, {"layers": layers * 3})
    )
    assert shared[1].unshared_parameters == count_parameters(rolled_out[0].layers)
    assert shared[1].parameters < rolled_out[1].parameters


@pytest.mark.parametrize(
    "fields",
    [{}, {"checkpointing": True}, {"residual": {"type": "reversible"}}],
    ids=["plain", "checkpointing", "reversible"],
)
def test_memories_and_choices_are_part_of_the_memory(fields: dict[str, Any]) -> None:
    layers = [
        {"attention": {"type": "transformer_xl", "memory": 256}, "feedforward": {"type": "dense"}},
        {"attention": {"type": "reformer", "chunk": 16}, "feedforward": {"type": "dense"}},
    ]
    given = {"width": 32, "layers": layers * 6, "position": "none", **fields}
    holds(*pair(Architecture.model_validate(given), True, "token"))


def holds(net: Transformer, cost: ModelCost) -> None:
    tokens = torch.randint(V, (B, N))
    assert cost.parameters == count_parameters(net)
    tables = [net.embedding, net.head] + ([net.positions.table] if net.positions.table else [])
    apart = sum(count_parameters(t) for t in tables)
    assert cost.non_embedding_parameters == cost.parameters - apart
    halt(net, -20.0)
    net.eval()
    assert cost.flops == pytest.approx(count_flops(net, tokens), rel=0.01)
    net(tokens)  # tables of positions are made by the first pass
    weights = 4 * cost.parameters
    with LiveBytes() as live, torch.no_grad():
        net(tokens)
    assert cost.peak_memory_mb * 1e6 == pytest.approx(weights + live.peak, rel=0.1)
    net.train()
    assert cost.training_flops == pytest.approx(
        count_training_flops(lambda: loss_of(net)), rel=0.01
    )
    assert cost.training_memory_mb * 1e6 == pytest.approx(training_peak(net), rel=0.1)
    net.eval()
    halt(net, 20.0)
    assert cost.flops_low == pytest.approx(count_flops(net, tokens), rel=0.01)


def training_peak(net: Transformer, batch: int = B, length: int = N, *, half: bool = False) -> int:
    """Most bytes of tensors in steps of training, weights and AdamW's state included."""
    optimizer = build_optimizer(net, width=net.arch.width, learning_rate=1e-3, weight_decay=0.0)
    with LiveBytes() as live:
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                out = net(torch.randint(V, (batch, length)))  # its logits are held to the end
            loss = training_loss(out, torch.randint(OUTPUTS, out.logits.shape[:-1]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return live.peak + sum(p.nbytes for p in net.parameters())


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"checkpointing": True},
    "reversible": {"residual": {"type": "reversible"}},
}


@pytest.mark.parametrize("name", ["survey-lm", "survey-encoder"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_memory_of_random_mixtures_of_mechanisms(
    name: str, option: str, precision: Literal["fp32", "bf16"]
) -> None:
    space = load_space(name)
    rng = random.Random(3)
    batch, length = 4, 256
    shape = {"vocab_size": V, "num_outputs": OUTPUTS, "causal": space.causal, "head": "token"}
    # half precision is slow on a CPU
    for _ in range(6 if precision == "fp32" else 3):
        drawn = space.sample(rng).model_dump(mode="json")
        drawn |= {"residual": {"type": "pre_norm"}, "checkpointing": False}
        drawn |= {"halting": {"type": "none"}}
        for layer in drawn["layers"]:  # kernels of convolutions hold more than tensors
            if layer["feedforward"]["type"] == "convolution":
                layer["feedforward"] = {"type": "dense"}
        arch = Architecture.model_validate(drawn | OPTIONS[option])
        cost = model_cost(
            arch,
            batch_size=batch,
            sequence_length=length,
            precision=precision,
            **shape,  # type: ignore[arg-type]
        )
        net = build_model(arch, max_length=length, **shape).train()  # type: ignore[arg-type]
        peak = training_peak(net, batch, length, half=precision == "bf16")
        # in half precision it is not told which inputs of products have copies of their own
        error = 0.1 if precision == "fp32" else 0.15
        assert cost.training_memory_mb * 1e6 == pytest.approx(peak, rel=error), arch


@pytest.mark.parametrize("name", ["survey-lm", "survey-encoder"])
def test_memory_grows_with_length_and_depth(name: str) -> None:
    space = load_space(name)
    rng = random.Random(4)

    def memory(arch: Architecture, length: int) -> tuple[float, float]:
        cost = model_cost(
            arch,
            batch_size=4,
            sequence_length=length,
            vocab_size=V,
            num_outputs=OUTPUTS,
            causal=space.causal,
            head="token",
        )
        return cost.training_memory_mb, cost.peak_memory_mb

    for _ in range(100):
        arch = space.sample(rng)
        lengths = [memory(arch, length) for length in (256, 512, 1024, 2048)]
        for metric in zip(*lengths, strict=True):
            assert all(less < more for less, more in pairwise(metric))
        deeper = arch.model_copy(update={"layers": (*arch.layers, *arch.layers[:1])})
        for less, more in zip(memory(arch, 256), memory(deeper, 256), strict=True):
            assert less < more


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cycles": {"repeats": 3},
    "act": {"repeats": 3, "halting": {"type": "act"}},
    "reversible": {"residual": {"type": "reversible"}},
    "reversible cycles": {"residual": {"type": "reversible"}, "repeats": 3},
    "checkpointing": {"checkpointing": True},
    "checkpointed cycles": {"checkpointing": True, "repeats": 3},
    "early exit": {"halting": {"type": "early_exit"}},
    "early exit, cycles": {"halting": {"type": "early_exit"}, "repeats": 2},
    "depth-adaptive": {"halting": {"type": "depth_adaptive"}},
    "depth-adaptive, checkpointing": {
        "halting": {"type": "depth_adaptive"},
        "checkpointing": True,
    },
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=list(VARIANTS))
@pytest.mark.parametrize("head", ["token", "pooled"])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_every_assembly(fields: dict[str, Any], head: str, norm: str) -> None:
    layers = [
        {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 2}},
        {"attention": {"type": "longformer"}, "feedforward": {"type": "gated", "ratio": 1}},
        {"attention": {"type": "linear"}, "feedforward": {"type": "dense", "ratio": 1}},
    ]
    given = {"width": 64, "layers": layers, "position": "learned", "norm": norm, **fields}
    holds(*pair(Architecture.model_validate(given), True, head))


@pytest.mark.parametrize("fields", [{}, {"halting": {"type": "early_exit"}, "repeats": 2}], ids=str)
def test_experts_cost_something_between(fields: dict[str, Any]) -> None:
    layers = [
        {"attention": {"type": "full"}, "feedforward": {"type": "mixture"}},
        {"attention": {"type": "linear"}, "feedforward": {"type": "mixture", "experts": 2}},
    ]
    given = {"width": 32, "layers": layers, **fields}
    net, cost = pair(Architecture.model_validate(given), False, "token")
    halt(net, -20.0)
    counted = count_flops(net.eval(), torch.randint(V, (B, N)))
    assert cost.flops_low < counted <= 1.01 * cost.flops


def test_shared_and_idle_parameters() -> None:
    linformer = {"type": "linformer", "rank": 8}
    layers = [
        {"attention": attention, "feedforward": {"type": feedforward}}
        for attention in ({**linformer, "sharing": "model"}, linformer)
        for feedforward in ("dense", "mixture")
    ]
    arch = Architecture.model_validate({"width": 32, "layers": layers * 2, "position": "none"})
    net, cost = pair(arch, False, "token")
    assert cost.parameters == count_parameters(net)
    expert = 2 * 32 * 128
    assert cost.active_parameters == cost.parameters - 4 * 3 * expert


def test_positions_within_attention_have_their_parameters() -> None:
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 4}
    arch = Architecture.model_validate({"width": 32, "layers": [layer] * 2, "position": "relative"})
    net, cost = pair(arch, True, "token")
    assert cost.parameters == count_parameters(net)


def test_two_thousand_in_a_second() -> None:
    space = load_space("efficient-lm")
    rng = random.Random(1)
    architectures = [space.sample(rng) for _ in range(2000)]
    started = time.process_time()
    for arch in architectures:
        model_cost(
            arch,
            batch_size=8,
            sequence_length=640,
            vocab_size=256,
            num_outputs=256,
            causal=True,
            head="token",
        )
    assert time.process_time() - started < 1


def test_names_are_those_of_the_catalogue() -> None:
    _, cost = pair(load_space("tiny").sample(0), True, "token")
    before_training = {m.name for m in METRICS.values() if m.known == "before training"}
    assert set(cost.metrics()) == before_training


def test_weights_are_made_for_the_longest_sequence() -> None:
    arch = Architecture.model_validate(
        {
            "width": 16,
            "position": "learned",
            "layers": [{"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}}],
        }
    )
    shape = {"vocab_size": V, "num_outputs": 3, "causal": False, "head": "pooled"}
    net = build_model(arch, max_length=500, **shape)  # type: ignore[arg-type]
    cost = model_cost(arch, batch_size=1, sequence_length=90, max_length=500, **shape)  # type: ignore[arg-type]
    assert cost.parameters == count_parameters(net)
    tokens = torch.randint(V, (1, 90))
    assert cost.flops == count_flops(net, tokens)


def test_costs_grow_with_the_batch() -> None:
    arch = load_space("efficient-lm").sample(3)
    costs = [
        model_cost(
            arch,
            batch_size=b,
            sequence_length=N,
            vocab_size=V,
            num_outputs=V,
            causal=True,
            head="token",
        )
        for b in (1, 2, 4)
    ]
    for small, large in pairwise(costs):
        assert large.flops == 2 * small.flops
        assert large.parameters == small.parameters
        assert large.peak_memory_mb > small.peak_memory_mb
