"""The training loop. One seed fixes initialisation, data order and all randomness of each step."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from nas.errors import TrialFailed
from nas.models import Memory, ModelOutput, Transformer, build_model
from nas.schemas import TrainingRecipe
from nas.tasks.base import Batch, HeldOut, Task
from nas.tasks.streams import StreamBatch, StreamedTask
from nas.training import objectives
from nas.training.checkpoint import Checkpoint
from nas.training.evaluation import context_used, executed_flops, precision
from nas.training.failures import memory_failures
from nas.training.optimizer import build_optimizer, set_learning_rate
from nas.training.schedule import Schedule
from search_spaces.architecture import Architecture

StopCheck: TypeAlias = Callable[[], bool]
StepHook: TypeAlias = Callable[[int, float], None]

CHECK_EVERY = 16
"""Steps between looks at the loss on devices where a look waits for all work queued."""


def never() -> bool:
    """The stop check of a training that is not to be stopped."""
    return False


class Trainer:
    """A model in training: what it has learned, and everything that fixes what it learns next.

    On one device and number of threads the result of a step depends only on the arguments here and
    on the step, so a training continued from a checkpoint ends bit for bit as one never stopped.

    A model that remembers the segment before reads texts on and on, from segment to segment.

    max_steps: length of the schedule.  start: names the weights it starts from, for the identity.
    """

    def __init__(
        self,
        architecture: Architecture,
        task: Task,
        recipe: TrainingRecipe,
        *,
        max_steps: int,
        seed: int,
        device: torch.device,
        start: str = "scratch",
    ) -> None:
        self.task = task
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.steps = 0
        self.identity = _identity(architecture, task, recipe, max_steps, seed, start)
        self.schedule = Schedule(max_steps, recipe.warmup)
        with memory_failures("building the model"):
            self.model = initial_model(architecture, task, seed).to(device)
            self.optimizer = build_optimizer(
                self.model,
                width=architecture.width,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
            )
        self._stream = task if self.model.has_memory and isinstance(task, StreamedTask) else None
        self._memory: Memory | None = None
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._losses: Tensor = torch.zeros((), device=device)
        self._norms: Tensor = torch.zeros((), device=device)
        self._counted = 0

    def run(
        self, to_steps: int, *, should_stop: StopCheck = never, on_step: StepHook | None = None
    ) -> bool:
        """Train until ``to_steps`` steps are done; whether they are, and not stopped before.

        on_step: called after each step with the steps done and the seconds that the last one took.

        Raises:
            TrialFailed: the loss or a gradient is not finite, or memory is short.
        """
        check_every = 1 if self.device.type == "cpu" else CHECK_EVERY
        self.model.train()
        with memory_failures("training"), self._random_state_kept():
            while self.steps < to_steps:
                if should_stop():
                    return False
                began = time.perf_counter()
                self._step()
                if self.steps % check_every == 0 or self.steps == to_steps:
                    self._check_finite()
                if on_step is not None:
                    on_step(self.steps, time.perf_counter() - began)
        return True

    def evaluate(
        self, split: HeldOut, limit: int | None, *, should_stop: StopCheck = never
    ) -> dict[str, float]:
        """Loss (nats per target), accuracy, expected depth and FLOPs on a split; empty if stopped.

        Raises:
            TrialFailed: the loss is not finite, or memory is short.
        """
        self.model.eval()
        total = torch.zeros(4, dtype=torch.float64, device=self.device)
        tokens = 0
        memory: Memory | None = None
        # not inference mode: what the model caches here is used in training too
        with memory_failures("evaluating"), torch.no_grad():
            for batch, fresh in self._evaluation_batches(split, limit):
                if should_stop():
                    return {}
                on_device = batch.to(self.device)
                out = self._run(on_device, None if fresh else memory)
                memory = out.memory
                valid = int(batch.tokens.numel() if batch.mask is None else batch.mask.sum())
                nats, hits, count = objectives.sums(out.logits, on_device.targets)
                layers = out.metrics["expected_depth"] * valid
                total += torch.stack([part.double() for part in (nats, hits, count, layers)])
                tokens += valid
        nats, hits, count, layers = total.tolist()
        if not math.isfinite(nats):
            raise TrialFailed(f"diverged at step {self.steps}: the {split} loss is {nats}")
        return {
            "loss": nats / count,
            "accuracy": hits / count,
            "expected_depth": layers / tokens,
            "expected_flops": executed_flops(
                self.model, self.task, self.recipe, split, self.device
            ),
        }

    def effective_context(self, *, should_stop: StopCheck = never) -> float | None:
        """Tokens of context that the model uses on the validation split; None if stopped.

        Raises:
            Unsupported: the task has not one target for each position.
            TrialFailed: memory is short.
        """
        return context_used(self.model, self.task, self.recipe, self.device, should_stop)

    def recent_loss(self) -> float:
        """Mean training loss since the last call (auxiliary losses included), or NaN."""
        mean = float(self._losses) / self._counted if self._counted else math.nan
        self._losses.zero_()
        self._counted = 0
        return mean

    def checkpoint(self, notes: Mapping[str, float] | None = None) -> Checkpoint:
        """The present state. It shares memory with the trainer: write it before the next step."""
        return Checkpoint(
            self.identity,
            self.steps,
            self.model.state_dict(),
            self.optimizer.state_dict(),
            dict(notes or {}),
            self._memory,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same training.

        Raises:
            TrialFailed: it belongs to another training, or was trimmed before its end.
        """
        if checkpoint.identity != self.identity:
            raise TrialFailed("the checkpoint is of another training (architecture, data, recipe)")
        if checkpoint.optimizer is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        elif checkpoint.steps < self.schedule.max_steps:
            raise TrialFailed("the checkpoint was trimmed: its training cannot go on")
        self.model.load_state_dict(checkpoint.model)
        self._memory = checkpoint.memory
        self.steps = checkpoint.steps

    def _step(self) -> None:
        step = self.steps
        given = self._training_batch(step)
        batch = given.batch.to(self.device)
        _seed_step(self.seed, step, self.device)
        out = self._run(batch, None if given.fresh else self._memory)
        loss = objectives.training_loss(out, batch.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.gradient_clip)
        set_learning_rate(self.optimizer, self.schedule, step)
        self.optimizer.step()
        self._losses += loss.detach()
        self._norms += norm
        self._counted += 1
        self._memory = out.memory if self._stream is not None else None
        self.steps = step + 1

    def _training_batch(self, step: int) -> StreamBatch:
        if self._stream is not None:
            return self._stream.stream_batch(step, self.recipe.batch_size, self.seed)
        batch = self.task.training_batch(step, self.recipe.batch_size, self.seed)
        return StreamBatch(batch, fresh=True)

    def _evaluation_batches(
        self, split: HeldOut, limit: int | None
    ) -> Iterator[tuple[Batch, bool]]:
        """Batches, and whether nothing before them is to be remembered."""
        size = self.recipe.batch_size
        if self._stream is None:
            for batch in self.task.evaluation_batches(split, size, limit):
                yield batch, True
            return
        for given in self._stream.evaluation_stream(split, size, limit):
            yield given.batch, given.fresh

    def _run(self, batch: Batch, memory: Memory | None) -> ModelOutput:
        """The model on a batch on the device, which goes on from the first rows of a memory."""
        if memory is not None:
            rows = batch.tokens.shape[0]
            memory = tuple(None if m is None else m[:rows] for m in memory)
        with precision(self.recipe, self.device):
            out: ModelOutput = self.model(batch.tokens, batch.mask, memory=memory)
        return out

    def _check_finite(self) -> None:
        """Sums keep every NaN and infinity: one look tells of all steps since they were reset."""
        if not math.isfinite(float(self._losses + self._norms)):
            raise TrialFailed(f"diverged at step {self.steps}: the loss is not finite")
        self._norms.zero_()

    def _random_state_kept(self) -> AbstractContextManager[object]:
        """The process gets its own random state back when the steps are done."""
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])


def initial_model(architecture: Architecture, task: Task, seed: int) -> Transformer:
    """The model of an architecture for a task, on the CPU; its weights depend on the seed alone.

    Raises:
        InvalidArchitecture: the task's kind of slot cannot take it.
    """
    shape = task.shape
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_model(
            architecture,
            vocab_size=shape.vocab_size,
            num_outputs=shape.num_outputs,
            max_length=shape.sequence_length,
            causal=shape.causal,
            head=shape.head,
        )


def _seed_step(seed: int, step: int, device: torch.device) -> None:
    # torch's CPU generator reads 32 bits of its seed, so the two numbers are mixed first
    mixed = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)
    elif device.type == "mps":
        torch.mps.manual_seed(mixed)


def _identity(
    architecture: Architecture,
    task: Task,
    recipe: TrainingRecipe,
    max_steps: int,
    seed: int,
    start: str,
) -> str:
    """A digest of all that fixes a training but for the device and the number of threads."""
    parts = {
        "architecture": architecture.fingerprint(),
        "task": task.config.model_dump(mode="json"),
        "data": task.data_hash,
        "recipe": recipe.model_dump(mode="json"),
        "max_steps": max_steps,
        "seed": seed,
        "start": start,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
