"""A segment: one trial, from where its checkpoint left it to its next rung."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nas.errors import CorruptCheckpoint
from nas.schemas import TrainingRecipe
from nas.tasks.base import Task
from nas.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from nas.training.device import resolve_device
from nas.training.inheritance import inherit
from nas.training.loop import StepHook, StopCheck, Trainer, never
from search_spaces.architecture import Architecture


@dataclass(frozen=True)
class Parent:
    """A trained relative: which trial, what it is, and where its weights are."""

    trial: str
    architecture: Architecture
    checkpoint: Path


@dataclass(frozen=True)
class Segment:
    """What to train and how far.

    max_steps: the full fidelity, which the schedule spans.  to_steps: the rung.  checkpoint: read
    if it is there, written in the end, every save_seconds on the way, and when stopped; at full
    fidelity it holds the weights alone.  context: whether the effective context is measured too.
    test_batches: of the test split, evaluated in the end; by default none.  parent: whose weights
    it starts from where it can; where there are none any more, from scratch.
    """

    architecture: Architecture
    recipe: TrainingRecipe
    max_steps: int
    to_steps: int
    seed: int
    checkpoint: Path
    threads: int = 1
    device: str = "cpu"
    save_seconds: float = 20.0
    context: bool = False
    test_batches: int = 0
    parent: Parent | None = None


@dataclass(frozen=True)
class SegmentResult:
    """How far it came.

    finished: trained to the rung and evaluated there; otherwise it was stopped, ``metrics`` is
    empty, and the same segment goes on from the checkpoint.
    metrics: those of the task, on the validation split.  test: on the test split, if asked for.
    The seconds are of this call, not of earlier ones that were interrupted.
    """

    steps: int
    finished: bool
    metrics: dict[str, float]
    training_seconds: float
    evaluation_seconds: float
    test: dict[str, float] = field(default_factory=dict)


def run_segment(
    segment: Segment,
    task: Task,
    *,
    should_stop: StopCheck = never,
    on_step: StepHook | None = None,
) -> SegmentResult:
    """Train to the rung and evaluate there.

    should_stop: asked before each step and each evaluation batch.  on_step: called after each step
    with the steps done and the seconds that the last one took.

    Raises:
        TrialFailed: the trial diverged, ran out of memory, or its checkpoint cannot be used.
        Unsupported: no such device here.
    """
    torch.set_num_threads(segment.threads)
    trainer = _trainer(segment, task)
    steps_before = trainer.steps
    began = saved = time.perf_counter()

    def after_step(step: int, seconds: float) -> None:
        nonlocal saved
        if time.perf_counter() - saved >= segment.save_seconds:
            save_checkpoint(segment.checkpoint, trainer.checkpoint())
            saved = time.perf_counter()
        if on_step is not None:
            on_step(step, seconds)

    finished = trainer.run(segment.to_steps, should_stop=should_stop, on_step=after_step)
    if trainer.steps > steps_before:
        checkpoint = trainer.checkpoint()
        over = trainer.steps == segment.max_steps
        save_checkpoint(segment.checkpoint, checkpoint.trimmed() if over else checkpoint)
    trained = time.perf_counter()
    metrics: dict[str, float] = {}
    test: dict[str, float] = {}
    if finished:
        metrics = _evaluate(trainer, segment, should_stop)
        if metrics and segment.test_batches:
            test = trainer.evaluate("test", segment.test_batches, should_stop=should_stop)
            metrics = metrics if test else {}
    return SegmentResult(
        steps=trainer.steps,
        finished=bool(metrics),
        metrics=metrics,
        training_seconds=trained - began,
        evaluation_seconds=time.perf_counter() - trained,
        test=test,
    )


def _evaluate(trainer: Trainer, segment: Segment, should_stop: StopCheck) -> dict[str, float]:
    """Everything that the segment is to measure, or nothing if stopped."""
    batches = segment.recipe.evaluation_batches
    metrics = trainer.evaluate("validation", batches, should_stop=should_stop)
    if metrics and segment.context:
        context = trainer.effective_context(should_stop=should_stop)
        return {} if context is None else {**metrics, "effective_context": context}
    return metrics


def _trainer(segment: Segment, task: Task) -> Trainer:
    trainer = Trainer(
        segment.architecture,
        task,
        segment.recipe,
        max_steps=segment.max_steps,
        seed=segment.seed,
        device=resolve_device(segment.device),
        start=segment.parent.trial if segment.parent else "scratch",
    )
    if segment.checkpoint.exists():
        checkpoint = load_checkpoint(segment.checkpoint, trainer.device)
        # past the rung: a worker that had lost its lease went on. From scratch gives the same again
        if checkpoint.steps <= segment.to_steps:
            trainer.restore(checkpoint)
    if segment.parent and not trainer.steps:
        with suppress(FileNotFoundError, CorruptCheckpoint):
            weights = load_weights(segment.parent.checkpoint)
            inherit(trainer.model, segment.architecture, weights, segment.parent.architecture)
    return trainer
