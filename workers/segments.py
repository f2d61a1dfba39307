"""The trainable: one Ray Tune trial trains one (trial, rung) segment on an actor used again."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import structlog
import torch
import torch._dynamo  # the first optimizer of a process imports it: seconds, better spent ahead
from ray import tune

from nas.billing import JOULES_PER_KWH
from nas.catalogue.tasks import AnyTask
from nas.errors import CorruptCheckpoint, NasError, TrialFailed
from nas.measure.energy import Meter, gpu, processors
from nas.schemas import TrainingRecipe
from nas.tasks import build_task
from nas.tasks.base import Task
from nas.training.segment import Parent, Segment, SegmentResult, run_segment
from search_spaces import Architecture, InvalidInput

log = structlog.get_logger()


@dataclass(frozen=True)
class Bench:
    """What all segments of a job share; it travels to each actor once."""

    task: AnyTask
    dataset: Path | None
    cache: Path
    recipe: TrainingRecipe
    max_steps: int
    threads: int
    device: str
    stop_file: Path
    gpus: float = 0.0
    """What each segment has of its GPU."""
    context: bool = False
    """Whether each rung measures the effective context."""
    data_hash: str | None = None
    """Of the data that the job was begun with; None while they are looked at for the first time."""


@dataclass(frozen=True)
class Assignment:
    """One segment: train a trial's architecture up to a rung's steps, from its checkpoint."""

    trial: str
    rung: int
    to_steps: int
    seed: int
    architecture: str
    checkpoint: str
    test_batches: int = 0
    parent: dict[str, str] | None = None
    """The trial whose weights it starts from, its architecture and its checkpoint."""


@dataclass(frozen=True)
class Outcome:
    """What became of a segment.

    disturbed: it is not the trial that is at fault (a full disk, data that cannot be read), so it
    is worth another try.
    """

    kind: Literal["finished", "interrupted", "failed", "disturbed"]
    steps: int
    metrics: dict[str, float]
    training_seconds: float
    evaluation_seconds: float
    reason: str | None = None
    test: dict[str, float] = field(default_factory=dict)
    joules: float | None = None

    @property
    def metered_kwh(self) -> float | None:
        """The energy that counters have measured, if they have."""
        return None if self.joules is None else self.joules / JOULES_PER_KWH

    def to_result(self) -> dict[str, Any]:
        """As a Tune result, which ends the Tune trial."""
        return {"outcome": json.dumps(asdict(self)), "done": True}

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> Outcome:
        """Back from a Tune result."""
        return cls(**json.loads(result["outcome"]))


class SegmentTrainable(tune.Trainable):
    """Trains whatever segment its actor is given next; data and imports stay warm in between."""

    def setup(  # type: ignore[override]  # how tune.with_parameters passes it
        self, config: dict[str, Any], bench: Bench
    ) -> None:
        """Take the first segment; the data are loaded once an actor."""
        torch.set_num_threads(bench.threads)
        self.bench = bench
        self.assignment = Assignment(**config)
        self.task = load_data(bench)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self.assignment = Assignment(**new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train the segment to its end, or until the job is told to stop."""
        if isinstance(self.task, str):  # an actor lives for many segments: the data may be back
            self.task = load_data(self.bench)
        if isinstance(self.task, str):
            return _without_result("disturbed", self.task).to_result()
        with StopFlag(self.bench.stop_file) as flag, _meter(self.bench) as meter:
            outcome = _train(self.bench, self.assignment, self.task, flag)
        return replace(outcome, joules=meter.joules).to_result()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: segments keep their own checkpoints, by temporary file and replacement."""


def load_data(bench: Bench) -> Task | str:
    """The job's data, or why they cannot be used: an outcome's reason, which Tune would lose."""
    try:
        task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    except (NasError, InvalidInput, OSError) as error:
        return f"{type(error).__name__}: {error}"
    if bench.data_hash not in (None, task.data_hash):
        return f"the data have changed since the job began: {bench.dataset or bench.cache}"
    return task


class StopFlag:
    """Whether the job has been told to stop, looked up beside the training and not within it."""

    def __init__(self, path: Path, seconds: float = 0.2) -> None:
        self._path = path
        self._seconds = seconds
        self._ended = threading.Event()
        self.raised = False

    def __enter__(self) -> StopFlag:
        self.raised = self._path.exists()
        threading.Thread(target=self._watch, name="stop-flag", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self.raised and not self._ended.wait(self._seconds):
            self.raised = os.path.exists(self._path)


def _meter(bench: Bench) -> Meter:
    if not bench.gpus:
        return Meter(processors())
    device = gpu(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    return Meter(processors(), device=device, share=min(1.0, bench.gpus))


def _train(bench: Bench, assignment: Assignment, task: Task, flag: StopFlag) -> Outcome:
    segment = Segment(
        architecture=Architecture.model_validate_json(assignment.architecture),
        recipe=bench.recipe,
        max_steps=bench.max_steps,
        to_steps=assignment.to_steps,
        seed=assignment.seed,
        checkpoint=Path(assignment.checkpoint),
        threads=bench.threads,
        device=bench.device,
        context=bench.context,
        test_batches=assignment.test_batches,
        parent=_parent(assignment.parent),
    )
    began = time.perf_counter()
    try:
        result = _run(segment, task, flag)
    except OSError as error:
        reason = f"{type(error).__name__}: {error}"
        return _without_result("disturbed", reason, time.perf_counter() - began)
    except TrialFailed as error:
        return _without_result("failed", str(error), time.perf_counter() - began)
    except Exception as error:  # whatever a mechanism may raise ends its trial, not the job
        log.exception("trial failed", trial=assignment.trial)
        reason = f"{type(error).__name__}: {error}"
        return _without_result("failed", reason, time.perf_counter() - began)
    return Outcome(
        "finished" if result.finished else "interrupted",
        result.steps,
        dict(result.metrics),
        result.training_seconds,
        result.evaluation_seconds,
        test=dict(result.test),
    )


def _run(segment: Segment, task: Task, flag: StopFlag) -> SegmentResult:
    """The segment; from the start when its checkpoint is corrupt, which gives the same result."""
    try:
        return run_segment(segment, task, should_stop=lambda: flag.raised)
    except CorruptCheckpoint as error:
        log.warning("training again from the start", reason=str(error))
        segment.checkpoint.unlink(missing_ok=True)
        return run_segment(segment, task, should_stop=lambda: flag.raised)


def _parent(given: dict[str, str] | None) -> Parent | None:
    if given is None:
        return None
    architecture = Architecture.model_validate_json(given["architecture"])
    return Parent(given["trial"], architecture, Path(given["checkpoint"]))


def _without_result(
    kind: Literal["failed", "disturbed"], reason: str, seconds: float = 0.0
) -> Outcome:
    return Outcome(kind, 0, {}, seconds, 0.0, reason)
