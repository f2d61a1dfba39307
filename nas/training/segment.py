"""A segment: one trial, from where its checkpoint left it to its next rung."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.schemas import TrainingRecipe
from nas.tasks.base import Task
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.device import resolve_device
from nas.training.loop import StepHook, StopCheck, Trainer, never
from search_spaces.architecture import Architecture


@dataclass(frozen=True)
class Segment:
    """What to train and how far.

    max_steps: the full fidelity, which the schedule spans.  to_steps: the rung.  checkpoint: read
    if it is there, written in the end, every save_seconds on the way, and when stopped.
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


@dataclass(frozen=True)
class SegmentResult:
    """How far it came.

    finished: trained to the rung and evaluated there; otherwise it was stopped, ``metrics`` is
    empty, and the same segment goes on from the checkpoint.
    metrics: loss (nats per token), accuracy, expected_depth on the validation split.
    The seconds are of this call, not of earlier ones that were interrupted.
    """

    steps: int
    finished: bool
    metrics: dict[str, float]
    training_seconds: float
    evaluation_seconds: float


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
        save_checkpoint(segment.checkpoint, trainer.checkpoint())
    trained = time.perf_counter()
    metrics: dict[str, float] = {}
    if finished:
        metrics = trainer.evaluate(
            "validation", segment.recipe.evaluation_batches, should_stop=should_stop
        )
    return SegmentResult(
        steps=trainer.steps,
        finished=bool(metrics),
        metrics=metrics,
        training_seconds=trained - began,
        evaluation_seconds=time.perf_counter() - trained,
    )


def _trainer(segment: Segment, task: Task) -> Trainer:
    trainer = Trainer(
        segment.architecture,
        task,
        segment.recipe,
        max_steps=segment.max_steps,
        seed=segment.seed,
        device=resolve_device(segment.device),
    )
    if segment.checkpoint.exists():
        checkpoint = load_checkpoint(segment.checkpoint, trainer.device)
        # past the rung: a worker that had lost its lease went on. From scratch gives the same again
        if checkpoint.steps <= segment.to_steps:
            trainer.restore(checkpoint)
    return trainer
