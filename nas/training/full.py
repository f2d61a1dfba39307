"""A full training: an exported architecture at its full length, from scratch or from its trial."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from nas.atomic import replacing
from nas.errors import Conflict
from nas.tasks import Task, build_task
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.training.config import TrainingConfig, read_config, versions_here, write_config
from nas.training.device import resolve_device
from nas.training.loop import StopCheck, Trainer, never
from nas.training.weights import read_weights, write_weights
from search_spaces.errors import InvalidInput, Problem

CHECKPOINT_NAME = "checkpoint.pt"
CONFIG_NAME = "config.json"
MODEL_NAME = "model.safetensors"
METRICS_NAME = "metrics.json"

SAVE_SECONDS = 30.0
REPORT_SECONDS = 1.0
TEST_BATCHES = 256
"""At most so many batches of the test split: of a long text, a part of it says enough."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is; ``loss`` is the mean training loss since the last report."""

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to; metrics are those of the task, what is costly after it alone.

    finished: False if it was stopped on the way: ``validation_after`` and ``test`` are empty, and
    it can be resumed.  seconds: of training, before an interruption included.
    same_data: whether it trained on what the architecture was searched on.
    """

    finished: bool
    steps: int
    seconds: float
    validation_before: dict[str, float]
    validation_after: dict[str, float]
    test: dict[str, float]
    same_data: bool
    folder: Path


ProgressHook: TypeAlias = Callable[[TrainingProgress], None]


@dataclass(frozen=True)
class _Plan:
    """What a training is to do; a resumed one does what it was begun with."""

    steps: int
    from_weights: bool


def train_config(
    config_path: Path,
    *,
    out: Path,
    cache: Path,
    data: Path | None = None,
    steps: int | None = None,
    from_weights: bool = False,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    on_progress: ProgressHook | None = None,
    should_stop: StopCheck = never,
) -> TrainingOutcome:
    """Train what a configuration says; leave the model and its metrics in ``out``.

    The schedule, warm-up and cosine, is a fresh one over all steps, also from the trial's weights.

    out: gets config.json, model.safetensors and metrics.json; on the way checkpoint.pt.
    data: a user's own file, where the task takes one.  steps: by default the ``full_steps`` of the
    configuration.  from_weights: start from the weights beside it.  resume: go on from the
    checkpoint in ``out`` if there is one, to the same end as if never interrupted.

    Raises:
        InvalidInput: the configuration, its weights or the data cannot be used.
        Conflict: ``out`` holds a training that is not to be resumed, or one of another length.
        DataUnavailable: the data are missing or cannot be read.
        TrialFailed: it diverged, ran out of memory, or its checkpoint cannot be used.
        Unsupported: no such device here.
    """
    config = read_config(config_path)
    chosen = resolve_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if steps is not None and steps < 1:
        raise InvalidInput([Problem("/steps", f"{steps} steps are too few", ("1 or more",))])
    checkpoint = _earlier(out / CHECKPOINT_NAME, steps, resume)
    plan = _Plan(steps or config.full_steps, from_weights)
    if checkpoint is not None:
        notes = checkpoint.notes
        plan = _Plan(int(notes["plan_steps"]), bool(notes["plan_from_weights"]))
    task = build_task(config.task, dataset=data, cache=cache)
    trainer = _trainer(config, config_path.parent, task, plan, chosen)
    training = _FullTraining(config, task, trainer, plan, out)
    training.begin(checkpoint)
    if not training.run(should_stop, on_progress):
        return training.outcome(finished=False)
    outcome = training.outcome(finished=True)
    _write_results(outcome, config, task, trainer)
    return outcome


class _FullTraining:
    """A trainer with what is kept across interruptions: its first metrics and its clock."""

    def __init__(
        self, config: TrainingConfig, task: Task, trainer: Trainer, plan: _Plan, out: Path
    ) -> None:
        self.config = config
        self.trainer = trainer
        self.plan = plan
        self.out = out
        self.same_data = task.data_hash == config.data_hash
        self.before: dict[str, float] = {}
        self.seconds = 0.0

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint, or measure where the training starts."""
        if checkpoint is not None:
            self.trainer.restore(checkpoint)
            self.seconds = checkpoint.notes["seconds"]
            self.before = {
                name.removeprefix("before_"): value
                for name, value in checkpoint.notes.items()
                if name.startswith("before_")
            }
            return
        self.before = self.trainer.evaluate("validation", self.config.recipe.evaluation_batches)
        write_config(self.out / CONFIG_NAME, self.config.model_copy(update={"weights": None}))

    def run(self, should_stop: StopCheck, on_progress: ProgressHook | None) -> bool:
        """Train to the end, saving and reporting on the way; whether the end was reached."""
        saved = reported = time.monotonic()

        def after_step(step: int, seconds: float) -> None:
            nonlocal saved, reported
            self.seconds += seconds
            now = time.monotonic()
            if now - saved >= SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            if on_progress and (now - reported >= REPORT_SECONDS or step == self.plan.steps):
                loss = self.trainer.recent_loss()
                on_progress(TrainingProgress(step, self.plan.steps, loss, self.seconds))
                reported = now

        finished = self.trainer.run(self.plan.steps, should_stop=should_stop, on_step=after_step)
        self._save()
        return finished

    def outcome(self, *, finished: bool) -> TrainingOutcome:
        """What came of it, evaluated if it is finished."""
        after: dict[str, float] = {}
        test: dict[str, float] = {}
        if finished:
            after = self.trainer.evaluate("validation", self.config.recipe.evaluation_batches)
            if "effective_context" in self.config.task.metrics:
                context = self.trainer.effective_context()
                after |= {} if context is None else {"effective_context": context}
            test = self.trainer.evaluate("test", TEST_BATCHES)
        return TrainingOutcome(
            finished=finished,
            steps=self.trainer.steps,
            seconds=self.seconds,
            validation_before=self.before,
            validation_after=after,
            test=test,
            same_data=self.same_data,
            folder=self.out,
        )

    def _save(self) -> None:
        notes = {f"before_{name}": value for name, value in self.before.items()}
        notes["seconds"] = self.seconds
        notes["plan_steps"] = self.plan.steps
        notes["plan_from_weights"] = self.plan.from_weights
        save_checkpoint(self.out / CHECKPOINT_NAME, self.trainer.checkpoint(notes))


def _earlier(path: Path, steps: int | None, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one and it may be gone on from."""
    if not path.exists():
        return None
    if not resume:
        raise Conflict(f"{path.parent} holds a training already: resume it or use another folder")
    checkpoint = load_checkpoint(path)
    begun_for = int(checkpoint.notes.get("plan_steps", 0))
    if begun_for == 0:
        raise Conflict(f"the checkpoint in {path.parent} is of a search, not of a full training")
    if steps not in (None, begun_for):
        raise Conflict(
            f"the training in {path.parent} was begun for {begun_for} steps, which its schedule "
            f"spans; for {steps}, use another folder"
        )
    return checkpoint


def _trainer(
    config: TrainingConfig, folder: Path, task: Task, plan: _Plan, device: torch.device
) -> Trainer:
    start, seed = "scratch", config.seed
    path = folder / (config.weights or "")
    if plan.from_weights:
        if config.weights is None:
            raise InvalidInput([Problem("/weights", "the configuration comes without weights")])
        weights = read_weights(path)
        # the trial has seen the order of its own seed
        start, seed = hashlib.sha256(path.read_bytes()).hexdigest(), config.seed + 1
    trainer = Trainer(
        config.architecture,
        task,
        config.recipe,
        max_steps=plan.steps,
        seed=seed,
        device=device,
        start=start,
    )
    if plan.from_weights:
        try:
            trainer.model.load_state_dict(weights)
        except RuntimeError as error:
            message = f"{path} does not hold the weights of this architecture: {error}"
            raise InvalidInput([Problem("/weights", message)]) from error
    return trainer


def _write_results(
    outcome: TrainingOutcome, config: TrainingConfig, task: Task, trainer: Trainer
) -> None:
    """The model, then the metrics: where these are, all is there."""
    write_weights(outcome.folder / MODEL_NAME, trainer.model.state_dict())
    document = {
        **{name: value for name, value in asdict(outcome).items() if name != "folder"},
        "fingerprint": config.architecture.fingerprint(),
        "data_hash": task.data_hash,
        "trivial_loss": task.trivial_loss,
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "versions": versions_here(),
    }
    with replacing(outcome.folder / METRICS_NAME) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
