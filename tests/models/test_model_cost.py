"""The arithmetic of whole models against the models themselves, over random architectures."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from nas.catalogue.metrics import METRICS
from nas.measure.flops import count_flops
from nas.measure.memory import LiveBytes
from nas.measure.parameters import count_parameters
from nas.models import Transformer, build_model
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
    if net.arch.halting.adaptive:
        torch.nn.init.zeros_(net.halting.unit.weight)
        torch.nn.init.constant_(net.halting.unit.bias, bias)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("head", ["token", "pooled"])
def test_costs_equal_the_model(name: str, head: str) -> None:
    space = load_space(name)
    rng = random.Random(0)
    tokens = torch.randint(V, (B, N))
    for _ in range(12):
        arch = space.sample(rng)
        net, cost = pair(arch, space.causal, head)
        assert cost.parameters == count_parameters(net)
        tables = [net.embedding, net.head] + ([net.positions.table] if net.positions.table else [])
        apart = sum(count_parameters(t) for t in tables)
        assert cost.non_embedding_parameters == cost.parameters - apart
        halt(net, -20.0)
        assert cost.flops == pytest.approx(count_flops(net, tokens), rel=0.01)
        net(tokens)  # tables of positions are made by the first pass
        weights = 4 * cost.parameters
        with LiveBytes() as live, torch.no_grad():
            net(tokens)
        assert cost.peak_memory_mb * 1e6 == pytest.approx(weights + live.peak, rel=0.12)
        assert cost.training_memory_mb * 1e6 == pytest.approx(4 * weights + kept(net), rel=0.12)
        halt(net, 20.0)
        assert cost.flops_low == pytest.approx(count_flops(net, tokens), rel=0.01)


def kept(net: Transformer) -> int:
    """Bytes that the forward pass leaves for the backward pass, and the gradients of the loss."""
    with LiveBytes() as live:
        logits = net(torch.randint(V, (B, N))).logits.flatten(0, -2)
        loss = cross_entropy(logits, torch.randint(OUTPUTS, logits.shape[:1]))
        alive = live.live
    assert loss.requires_grad
    return alive + 2 * 4 * logits.numel()


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
