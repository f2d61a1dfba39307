"""What trained models execute: as the counter sees it, and within the interval of the costs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nas.catalogue.tasks import ListOps, TaskConfig, TextLM
from nas.measure.expected_flops import ExecutedFlops, expected_flops
from nas.measure.flops import count_flops
from nas.models import build_model, list_mechanisms
from nas.schemas import TrainingRecipe
from nas.tasks import Task, build_task
from nas.tasks.base import Batch
from nas.training.loop import Trainer
from search_spaces import Architecture, load_space
from search_spaces.model_cost import ModelCost, model_cost

B, N, V = 2, 48, 16

ADAPTIVE = ("act", "early_exit", "depth_adaptive")


def with_attention(attention: str, causal: bool) -> Architecture:
    layer = {"attention": {"type": attention}, "feedforward": {"type": "mixture"}, "heads": 2}
    fields = {"width": 16, "layers": [layer], "repeats": 2, "halting": {"type": "act"}}
    if not causal:
        fields["position"] = "none"
    return Architecture.model_validate(fields)


@pytest.mark.parametrize("attention", list_mechanisms(kind="attention"))
def test_fused_attention_counts_as_under_the_math_back_end(attention: str) -> None:
    for causal in (True, False):
        try:
            arch = with_attention(attention, causal)
            shape = {"vocab_size": V, "num_outputs": V, "max_length": N, "head": "token"}
            net = build_model(arch, causal=causal, **shape).eval()  # type: ignore[arg-type]
        except ValueError:
            assert causal, "an encoder takes every mechanism"
            continue
        tokens = torch.randint(V, (B, N))
        with torch.no_grad(), ExecutedFlops() as executed:
            seen = net(tokens).logits
        assert executed.total == count_flops(net, tokens)
        with torch.no_grad():
            assert seen.equal(net(tokens).logits)


def test_the_mean_over_batches() -> None:
    net = build_model(
        with_attention("full", True),
        vocab_size=V,
        num_outputs=V,
        max_length=N,
        causal=True,
        head="token",
    ).eval()
    long, short = (torch.randint(V, (B, length)) for length in (N, N // 2))
    found = expected_flops(net, [Batch(long, long), Batch(short, short)])
    assert found == (count_flops(net, long) + count_flops(net, short)) / 2


@dataclass(frozen=True)
class Setting:
    """A survey space with a small task for it."""

    space: str
    config: TaskConfig


SETTINGS = (
    Setting("survey-lm", TextLM(sequence_length=N)),
    Setting(
        "survey-encoder",
        ListOps(min_length=8, max_length=N, train_examples=64, evaluation_examples=16),
    ),
)
RECIPE = TrainingRecipe(batch_size=4, learning_rate=0.01, evaluation_batches=1)


def trained(arch: Architecture, task: Task, steps: int) -> Trainer:
    trainer = Trainer(arch, task, RECIPE, max_steps=9, seed=0, device=torch.device("cpu"))
    trainer.run(steps)
    return trainer


def cost_of(arch: Architecture, task: Task) -> ModelCost:
    shape = task.shape
    return model_cost(
        arch,
        batch_size=RECIPE.batch_size,
        sequence_length=shape.sequence_length,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
    )


def depends_on_data(arch: Architecture) -> bool:
    mixture = any(layer.feedforward.type == "mixture" for layer in arch.layers)
    return arch.halting.adaptive or mixture


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.space)
def test_what_is_executed_lies_between_the_least_and_the_most(
    setting: Setting, tmp_path: Path
) -> None:
    task = build_task(setting.config, dataset=None, cache=tmp_path)
    space, rng = load_space(setting.space), random.Random(0)
    drawn = (space.sample(rng) for _ in range(200))
    adaptive = [arch for arch in drawn if depends_on_data(arch)][:16]
    assert {*ADAPTIVE, "none"} == {arch.halting.type for arch in adaptive}
    inside = 0
    for arch in adaptive:
        cost = cost_of(arch, task)
        found = trained(arch, task, 3).evaluate("validation", 1)["expected_flops"]
        # as exact as the arithmetic is held to be
        assert 0.99 * cost.flops_low <= found <= 1.01 * cost.flops, arch
        inside += cost.flops_low < found < cost.flops
    assert inside > len(adaptive) / 4


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.space)
def test_where_nothing_depends_on_the_data_it_is_the_arithmetic(
    setting: Setting, tmp_path: Path
) -> None:
    task = build_task(setting.config, dataset=None, cache=tmp_path)
    space, rng = load_space(setting.space), random.Random(1)
    drawn = (space.sample(rng) for _ in range(100))
    fixed = next(arch for arch in drawn if not depends_on_data(arch))
    found = trained(fixed, task, 0).evaluate("validation", 1)
    assert found["expected_flops"] == cost_of(fixed, task).flops


def test_halting_sooner_executes_less(tmp_path: Path) -> None:
    task = build_task(TextLM(sequence_length=N), dataset=None, cache=tmp_path)
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 2}
    fields = {"width": 16, "layers": [layer], "repeats": 4, "halting": {"type": "act"}}
    trainer = trained(Architecture.model_validate(fields), task, 0)
    unit = trainer.model.halting.unit
    found = []
    for bias in (20.0, 0.0, -20.0):
        torch.nn.init.constant_(unit.bias, bias)
        found.append(trainer.evaluate("validation", 1)["expected_flops"])
    cost = cost_of(trainer.model.arch, task)
    assert found[0] == cost.flops_low
    assert found[0] < found[1] < found[2] == cost.flops
