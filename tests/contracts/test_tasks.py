"""What every task keeps, whatever its data: iterates the registry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas.catalogue.metrics import METRICS
from nas.catalogue.tasks import TASKS, ListOps, Mqar, TaskConfig, TextLM
from nas.schemas import TrainingRecipe
from nas.tasks import BUILDERS, Task, build_task
from nas.tasks.base import Batch
from nas.training.segment import Segment, run_segment
from search_spaces import Architecture

SMALLER: dict[str, TaskConfig] = {
    "text_lm": TextLM(sequence_length=32),
    "mqar": Mqar(vocab_size=64, evaluation_examples=64),
    "listops": ListOps(min_length=8, max_length=64, train_examples=200, evaluation_examples=50),
}
"""Settings for tasks whose defaults are slow to build."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=list(TASKS))
def config(request: pytest.FixtureRequest) -> TaskConfig:
    name: str = request.param
    return SMALLER.get(name) or TASKS[name].model_validate({"name": name})


@pytest.fixture
def task(config: TaskConfig, cache: Path) -> Task:
    return build_task(config, dataset=None, cache=cache)


def same(a: Batch, b: Batch) -> bool:
    masks = (a.mask is None) == (b.mask is None)
    if a.mask is not None and b.mask is not None:
        masks = a.mask.equal(b.mask)
    return masks and a.tokens.equal(b.tokens) and a.targets.equal(b.targets)


def batches(task: Task) -> Iterator[Batch]:
    yield task.training_batch(0, 4, 0)
    yield from task.evaluation_batches("validation", 4, 2)
    yield from task.evaluation_batches("test", 4, 2)


def test_both_halves_have_the_same_names() -> None:
    assert set(BUILDERS) == set(TASKS)


def test_settings_survive_json(config: TaskConfig) -> None:
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_batches_have_the_promised_shape(task: Task) -> None:
    shape = task.shape
    for batch in batches(task):
        length = batch.tokens.shape[1]
        assert batch.tokens.shape[0] == 4
        assert length <= shape.sequence_length
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        assert int(batch.tokens.min()) >= 0
        assert int(batch.tokens.max()) < shape.vocab_size
        assert batch.targets.shape == ((4, length) if shape.head == "token" else (4,))
        counted = batch.targets[batch.targets != -100]
        assert int(counted.min()) >= 0
        assert int(counted.max()) < shape.num_outputs
        if batch.mask is not None:
            assert batch.mask.dtype == torch.bool
            assert batch.mask.shape == batch.tokens.shape
            assert batch.mask.any(dim=1).all()


def test_a_step_has_one_batch_whatever_was_asked_before(task: Task, cache: Path) -> None:
    late = task.training_batch(7, 4, 1)
    for step in range(3):
        task.training_batch(step, 4, 2)
    assert same(task.training_batch(7, 4, 1), late)
    other = build_task(task.config, dataset=None, cache=cache)
    assert same(other.training_batch(7, 4, 1), late)


def test_seeds_and_steps_change_the_batch(task: Task) -> None:
    first = task.training_batch(0, 8, 0)
    assert not same(task.training_batch(0, 8, 1), first)
    assert not same(task.training_batch(1, 8, 0), first)


def test_held_out_batches_are_always_the_same_and_limited(task: Task) -> None:
    for split in ("validation", "test"):
        limited = list(task.evaluation_batches(split, 4, 3))
        assert len(limited) == 3
        again = list(task.evaluation_batches(split, 4, 3))
        assert all(same(a, b) for a, b in zip(limited, again, strict=True))
        every = list(task.evaluation_batches(split, 4, None))
        assert len(every) > 3
        assert all(len(b.tokens) == 4 for b in every[:-1])


def test_a_limited_evaluation_is_spread_over_the_split(task: Task) -> None:
    every = [
        tuple(row[row != 0].tolist())
        for batch in task.evaluation_batches("validation", 1, None)
        for row in batch.tokens
    ]
    few = [
        tuple(row[row != 0].tolist())
        for batch in task.evaluation_batches("validation", 2, 4)
        for row in batch.tokens
    ]
    places = [every.index(row) for row in few]
    assert places == sorted(places)
    assert places[0] < len(every) / 8
    assert places[-1] >= len(every) * 6 / 8


def test_validation_and_test_differ(task: Task) -> None:
    validation, test = (
        next(task.evaluation_batches(split, 4, 1)) for split in ("validation", "test")
    )
    assert not same(validation, test)


def test_the_trivial_loss_lies_below_a_uniform_guess(task: Task) -> None:
    assert 0 < task.trivial_loss < math.log(task.shape.num_outputs) + 0.05


def test_the_hash_is_of_the_data(task: Task, cache: Path) -> None:
    assert len(task.data_hash) == 64
    assert build_task(task.config, dataset=None, cache=cache).data_hash == task.data_hash


def test_metrics_are_in_the_catalogue(config: TaskConfig) -> None:
    assert set(config.metrics) <= {name for name, m in METRICS.items() if m.known == "at each rung"}


def test_a_rung_measures_what_is_promised(task: Task, tmp_path: Path) -> None:
    layer = {"attention": {"type": "linear"}, "feedforward": {"type": "dense"}, "heads": 2}
    segment = Segment(
        Architecture.model_validate({"width": 16, "layers": [layer]}),
        TrainingRecipe(batch_size=4, evaluation_batches=1),
        max_steps=1,
        to_steps=1,
        seed=0,
        checkpoint=tmp_path / "trial.pt",
        context="effective_context" in task.config.metrics,
    )
    assert set(run_segment(segment, task).metrics) == set(task.config.metrics)
