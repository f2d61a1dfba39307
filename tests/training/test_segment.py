from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.catalogue.tasks import ImageClassification, ListOps, TaskConfig, TextLM
from nas.errors import TrialFailed
from nas.schemas import TrainingRecipe
from nas.tasks import Task, build_task
from nas.tasks.base import Batch, HeldOut
from nas.training.checkpoint import load_checkpoint, load_weights, trim_checkpoint
from nas.training.loop import StopCheck, initial_model
from nas.training.segment import Segment, SegmentResult, run_segment
from search_spaces.architecture import Architecture

from .architectures import ACT, PERFORMER, tiny

RECIPE = TrainingRecipe(batch_size=4, learning_rate=0.004, evaluation_batches=4)


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    return Segment(
        architecture=tiny(),
        recipe=RECIPE,
        max_steps=12,
        to_steps=12,
        seed=3,
        checkpoint=tmp_path / "trial.pt",
    )


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_weights(a), load_weights(b)
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


def after(calls: int) -> StopCheck:
    """A stop check that turns true once it has been asked so many times."""
    asked = count()
    return lambda: next(asked) >= calls


@pytest.mark.parametrize(
    "architecture", [tiny(), ACT, PERFORMER], ids=["plain", "act", "performer"]
)
def test_rung_by_rung_ends_bit_for_bit_as_in_one_go(
    segment: Segment, text: Task, tmp_path: Path, architecture: Architecture
) -> None:
    through = replace(segment, architecture=architecture, checkpoint=tmp_path / "through.pt")
    rungs = replace(segment, architecture=architecture)
    whole = run_segment(through, text)
    for to_steps in (1, 5, 12):
        torch.rand(to_steps)  # whatever else draws random numbers in the process
        last = run_segment(replace(rungs, to_steps=to_steps), text)
        assert (last.steps, last.finished) == (to_steps, True)
    assert last.metrics == whole.metrics
    assert same_weights(rungs.checkpoint, through.checkpoint)


def test_an_interruption_anywhere_changes_nothing(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    whole = run_segment(replace(segment, checkpoint=tmp_path / "through.pt"), text)
    calls = 0

    def now_and_then() -> bool:
        nonlocal calls
        calls += 1
        return calls % 5 == 0

    results: list[SegmentResult] = []
    while not (results and results[-1].finished):
        results.append(run_segment(segment, text, should_stop=now_and_then))
        assert len(results) < 20
    assert [r.metrics for r in results[:-1]] == [{}] * (len(results) - 1)
    assert len(results) >= 3
    assert results[-1].metrics == whole.metrics
    assert same_weights(segment.checkpoint, tmp_path / "through.pt")


def test_the_schedule_spans_max_steps_whatever_the_rung(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    short = replace(segment, max_steps=40, to_steps=6)
    run_segment(short, text)
    other = replace(segment, max_steps=6, to_steps=6, checkpoint=tmp_path / "other.pt")
    run_segment(other, text)
    longer = replace(short, to_steps=7, checkpoint=tmp_path / "longer.pt")
    run_segment(longer, text, should_stop=after(6))
    assert same_weights(short.checkpoint, longer.checkpoint)
    assert not same_weights(short.checkpoint, other.checkpoint)


def test_two_seeds_differ_and_one_does_not(segment: Segment, text: Task, tmp_path: Path) -> None:
    first = run_segment(segment, text)
    again = run_segment(replace(segment, checkpoint=tmp_path / "again.pt"), text)
    other = run_segment(replace(segment, seed=4, checkpoint=tmp_path / "other.pt"), text)
    assert again.metrics == first.metrics
    assert other.metrics != first.metrics


def test_training_leaves_the_random_state_of_the_process_alone(
    segment: Segment, text: Task
) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run_segment(segment, text)
    assert torch.rand(3).equal(expected)


TASKS: dict[str, tuple[TaskConfig, int, float]] = {
    "text_lm": (TextLM(sequence_length=32), 80, 0.15),
    "image_classification": (ImageClassification(), 80, 0.05),
    "listops": (
        ListOps(min_length=8, max_length=64, train_examples=500, evaluation_examples=100),
        80,
        0.1,
    ),
}


@pytest.mark.parametrize("name", list(TASKS))
def test_training_beats_the_constant_predictor(segment: Segment, cache: Path, name: str) -> None:
    config, steps, gain = TASKS[name]
    task = build_task(config, dataset=None, cache=cache)
    recipe = TrainingRecipe(batch_size=16, learning_rate=0.01, evaluation_batches=8)
    result = run_segment(replace(segment, recipe=recipe, max_steps=steps, to_steps=steps), task)
    assert result.metrics["loss"] < task.trivial_loss - gain
    assert result.metrics["accuracy"] > 1.2 / task.shape.num_outputs
    assert result.metrics["expected_depth"] == 2
    assert result.training_seconds > result.evaluation_seconds > 0


def test_metrics_are_means_over_all_tokens(segment: Segment, text: Task) -> None:
    result = run_segment(segment, text)
    model = initial_model(segment.architecture, text, segment.seed).eval()
    model.load_state_dict(load_weights(segment.checkpoint))
    nats, hits, targets = 0.0, 0, 0
    with torch.no_grad():
        for batch in text.evaluation_batches("validation", 4, 4):
            logs = model(batch.tokens).logits.log_softmax(-1)
            nats -= float(logs.gather(-1, batch.targets.unsqueeze(-1)).double().sum())
            hits += int((logs.argmax(-1) == batch.targets).sum())
            targets += batch.targets.numel()
    assert result.metrics["loss"] == pytest.approx(nats / targets, rel=1e-5)
    assert result.metrics["accuracy"] == pytest.approx(hits / targets)


def test_expected_depth_is_measured(segment: Segment, text: Task) -> None:
    result = run_segment(replace(segment, architecture=ACT, to_steps=3), text)
    assert 2 <= result.metrics["expected_depth"] <= 6


def test_the_effective_context_is_measured_where_it_is_wanted(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    layer = {"attention": {"type": "longformer", "window": 2}, "feedforward": {"type": "dense"}}
    near = Architecture.model_validate({"width": 32, "position": "none", "layers": [layer]})
    segment = replace(segment, architecture=near)
    plain = run_segment(segment, text)
    told = run_segment(replace(segment, context=True), text)
    context = told.metrics["effective_context"]
    assert 1 <= context <= 3  # a token sees itself and two before
    assert told.metrics == {**plain.metrics, "effective_context": context}
    again = run_segment(replace(segment, context=True, checkpoint=tmp_path / "again.pt"), text)
    assert again.metrics == told.metrics


def test_a_stop_while_the_context_is_measured_leaves_the_rung_unfinished(
    segment: Segment, text: Task
) -> None:
    segment = replace(segment, context=True)
    result = run_segment(segment, text, should_stop=after(12 + 4 + 1))
    assert (result.steps, result.finished, result.metrics) == (12, False, {})
    assert "effective_context" in run_segment(segment, text).metrics


class Watched:
    """A task that notes which splits are evaluated."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.evaluated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def evaluation_batches(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[Batch]:
        self.evaluated.append(split)
        return self._task.evaluation_batches(split, batch_size, limit)


def test_the_test_split_is_looked_at_once_and_only_where_it_is_asked_for(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    task: Any = Watched(text)
    plain = run_segment(segment, task)
    assert plain.test == {}
    assert "test" not in task.evaluated
    task.evaluated.clear()
    again = replace(segment, checkpoint=tmp_path / "again.pt", test_batches=2)
    tested = run_segment(again, task)
    assert task.evaluated.count("test") == 1
    assert tested.metrics == plain.metrics
    assert tested.test.keys() == tested.metrics.keys()
    assert tested.test["loss"] != tested.metrics["loss"]


def test_a_stop_on_the_test_split_leaves_the_segment_unfinished(
    segment: Segment, text: Task
) -> None:
    asked = segment.to_steps + segment.recipe.evaluation_batches + 1
    stopped = run_segment(replace(segment, test_batches=4), text, should_stop=after(asked))
    assert (stopped.finished, stopped.metrics, stopped.test) == (False, {}, {})
    whole = run_segment(replace(segment, test_batches=4), text)
    assert whole.finished
    assert whole.test


def test_half_precision_trains_too(segment: Segment, text: Task, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "bf16"})
    half = run_segment(replace(segment, recipe=recipe, checkpoint=tmp_path / "half.pt"), text)
    full = run_segment(segment, text)
    assert half.metrics["loss"] == pytest.approx(full.metrics["loss"], rel=0.02)
    assert half.metrics["loss"] != full.metrics["loss"]
    assert all(t.dtype == torch.float32 for t in load_weights(tmp_path / "half.pt").values())


def test_gradients_are_clipped(segment: Segment, text: Task, tmp_path: Path) -> None:
    clipped = RECIPE.model_copy(update={"gradient_clip": 1e-12})
    still = replace(segment, recipe=clipped, to_steps=1, checkpoint=tmp_path / "still.pt")
    run_segment(still, text)
    initial = initial_model(segment.architecture, text, segment.seed).state_dict()
    moved = load_weights(still.checkpoint)
    # AdamW divides by the gradient's own size, but not below its epsilon of 1e-8
    assert all((moved[n] - initial[n]).abs().max() < 1e-4 for n in initial)
    run_segment(replace(segment, to_steps=1), text)
    moved = load_weights(segment.checkpoint)
    assert any((moved[n] - initial[n]).abs().max() > 1e-4 for n in initial)


class Disturbed:
    """A task with an accident at one training step."""

    def __init__(self, task: Task, step: int, accident: Callable[[], object]) -> None:
        self._task = task
        self._step = step
        self._accident = accident
        self.config, self.shape = task.config, task.shape
        self.data_hash, self.trivial_loss = task.data_hash, task.trivial_loss

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        if step == self._step:
            self._accident()
        return self._task.training_batch(step, batch_size, seed)

    def evaluation_batches(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[Batch]:
        return self._task.evaluation_batches(split, batch_size, limit)


def test_divergence_is_told_with_its_step(segment: Segment, text: Task) -> None:
    wild = RECIPE.model_copy(update={"learning_rate": 1e25, "warmup": 0})
    with pytest.raises(TrialFailed, match=r"diverged at step 2: the loss is not finite"):
        run_segment(replace(segment, recipe=wild), text)


def test_weights_spoilt_by_the_last_step_are_found_at_the_rung(
    segment: Segment, text: Task
) -> None:
    wild = RECIPE.model_copy(update={"learning_rate": 1e25, "warmup": 0})
    with pytest.raises(TrialFailed, match=r"diverged at step 1: the validation loss is"):
        run_segment(replace(segment, recipe=wild, to_steps=1), text)


@pytest.mark.parametrize(
    "accident",
    [lambda: torch.empty(2**46), lambda: np.empty(2**46), lambda: raises(torch.OutOfMemoryError)],
    ids=["torch", "numpy", "accelerator"],
)
def test_running_out_of_memory_fails_the_trial(
    segment: Segment, text: Task, accident: Callable[[], object]
) -> None:
    with pytest.raises(TrialFailed, match="out of memory while training"):
        run_segment(segment, Disturbed(text, 2, accident))


def test_a_fault_of_ours_is_not_blamed_on_the_trial(segment: Segment, text: Task) -> None:
    with pytest.raises(RuntimeError, match="must match the size"):
        run_segment(segment, Disturbed(text, 2, lambda: torch.ones(2) + torch.ones(3)))


def raises(error: type[Exception]) -> None:
    raise error("CUDA: tried to allocate 1 GiB")


def test_a_corrupt_checkpoint_fails_the_trial(segment: Segment, text: Task) -> None:
    segment.checkpoint.write_bytes(b"rubbish")
    with pytest.raises(TrialFailed, match="corrupt checkpoint"):
        run_segment(segment, text)


@pytest.mark.parametrize(
    "other", [{"seed": 5}, {"max_steps": 13}, {"architecture": tiny(width=16)}], ids=str
)
def test_the_checkpoint_of_another_training_is_refused(
    segment: Segment, text: Task, other: dict[str, Any]
) -> None:
    run_segment(replace(segment, to_steps=1), text)
    with pytest.raises(TrialFailed, match="another training"):
        run_segment(replace(segment, **other), text)


def test_a_trimmed_checkpoint_cannot_go_on(segment: Segment, text: Task) -> None:
    run_segment(replace(segment, to_steps=4), text)
    trim_checkpoint(segment.checkpoint)
    with pytest.raises(TrialFailed, match="trimmed"):
        run_segment(segment, text)


def test_a_full_training_leaves_its_weights_alone(segment: Segment, text: Task) -> None:
    run_segment(replace(segment, to_steps=4), text)
    assert load_checkpoint(segment.checkpoint).optimizer is not None
    run_segment(segment, text)
    assert load_checkpoint(segment.checkpoint).optimizer is None


def test_a_rung_already_trained_is_only_evaluated(segment: Segment, text: Task) -> None:
    first = run_segment(segment, text)
    steps: list[int] = []
    again = run_segment(segment, text, on_step=lambda step, _: steps.append(step))
    assert (again.metrics, steps) == (first.metrics, [])


def test_a_checkpoint_past_the_rung_is_not_used(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    run_segment(segment, text)
    back = run_segment(replace(segment, to_steps=5), text)
    fresh = run_segment(replace(segment, to_steps=5, checkpoint=tmp_path / "fresh.pt"), text)
    assert (back.steps, back.metrics) == (5, fresh.metrics)


def test_a_stop_takes_effect_before_the_next_step(segment: Segment, text: Task) -> None:
    long = replace(segment, max_steps=1_000_000, to_steps=1_000_000)
    began = time.monotonic()
    result = run_segment(long, text, should_stop=lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 1.3
    assert (result.finished, result.metrics) == (False, {})
    assert load_checkpoint(segment.checkpoint).steps == result.steps > 0


def test_a_stop_while_evaluating_keeps_what_was_trained(segment: Segment, text: Task) -> None:
    result = run_segment(segment, text, should_stop=after(13))
    assert (result.steps, result.finished) == (12, False)
    assert load_checkpoint(segment.checkpoint).steps == 12
    assert run_segment(segment, text).finished


def test_a_stop_at_once_writes_nothing(segment: Segment, text: Task) -> None:
    assert run_segment(segment, text, should_stop=lambda: True).steps == 0
    assert not segment.checkpoint.exists()


def test_every_step_is_told_and_checkpoints_are_written_on_the_way(
    segment: Segment, text: Task
) -> None:
    told: list[tuple[int, float]] = []
    saved: list[int] = []

    def on_step(step: int, seconds: float) -> None:
        told.append((step, seconds))
        saved.append(load_checkpoint(segment.checkpoint).steps)

    result = run_segment(replace(segment, save_seconds=0), text, on_step=on_step)
    assert [step for step, _ in told] == saved == list(range(1, 13))
    assert 0 < sum(seconds for _, seconds in told) <= result.training_seconds


def test_threads_are_set(segment: Segment, text: Task) -> None:
    try:
        run_segment(replace(segment, to_steps=1, threads=2), text)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
