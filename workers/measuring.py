"""Latency on the cluster: a slot holds all CPUs of a node, so that nothing trains meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import structlog
import torch
from ray.exceptions import RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from nas.errors import CorruptCheckpoint
from nas.latency import LatencyTable, Mode
from nas.measure.energy import joules_per_sample, processors
from nas.measure.latency import measure_table, stepper, time_rounds
from nas.models.transformer import Transformer
from nas.tasks import build_task
from nas.tasks.base import Task
from nas.training.checkpoint import load_weights
from nas.training.loop import initial_model
from search_spaces import Architecture
from workers.capacity import measuring_node
from workers.segments import Bench

log = structlog.get_logger()

WAIT_SECONDS = 120.0
"""So long a measurement waits for a node to fall idle: others may train on a shared cluster."""
A_LITTLE = 0.001
"""Of a node's own resource: enough to be there."""


@dataclass(frozen=True)
class Subject:
    """A trained model to be timed: its trial, its architecture, its weights where they are kept."""

    trial: str
    architecture: Architecture
    weights: Path | None


@dataclass(frozen=True)
class Timed:
    """Milliseconds of each trial's model, by mode: a validation batch passed, a decoding step.

    In the state of the machine in which the anchor takes ``anchor_ms``.  alone: whether nothing
    else ran on the node meanwhile.
    """

    milliseconds: dict[str, dict[Mode, float]]
    anchor_ms: float
    alone: bool
    joules: dict[str, float] = field(default_factory=dict)
    """Of one sample, by trial, where the node counts its energy."""

    def at_anchor(self, anchor_ms: float) -> dict[str, dict[Mode, float]]:
        """The same in another state of the machine."""
        factor = anchor_ms / self.anchor_ms
        return {
            trial: {mode: ms * factor for mode, ms in modes.items()}
            for trial, modes in self.milliseconds.items()
        }


def table_on_cluster(
    architectures: Sequence[Architecture], bench: Bench, seed: int, seconds: float
) -> LatencyTable:
    """The latency table for these architectures, measured on an idle node in so many seconds."""
    table: LatencyTable = on_idle_node(_measure_table, list(architectures), bench, seed, seconds)
    return table


def models_on_cluster(subjects: Sequence[Subject], bench: Bench) -> Timed:
    """Time each trial's model on an idle node."""
    timed: Timed = on_idle_node(_measure_models, list(subjects), bench)
    return timed


def on_idle_node(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in the measuring slot: all CPUs of the node that latencies are of, reserved, so that
    nothing trains there meanwhile; on one of them when it does not fall idle within a while."""
    node, cpus = measuring_node()
    slot = placement_group([{"CPU": cpus, node: A_LITTLE}])
    try:
        if slot.wait(WAIT_SECONDS):
            within = PlacementGroupSchedulingStrategy(slot)
            exclusive = ray.remote(num_cpus=cpus, max_retries=2, scheduling_strategy=within)
            return _result(exclusive(work).remote(*arguments))
    finally:
        remove_placement_group(slot)
    log.warning("the node does not fall idle: measuring beside other work")
    beside = ray.remote(num_cpus=1, max_retries=2, resources={node: A_LITTLE})
    return _result(beside(work).remote(*arguments))


def _result(reference: Any) -> Any:
    """What a task returned; what it raised is raised here as it was, without Ray's wrapping."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise


def _measure_table(
    architectures: list[Architecture], bench: Bench, seed: int, seconds: float
) -> LatencyTable:
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    tokens, mask = _full_batch(task, bench.recipe.batch_size)
    return measure_table(architectures, task.shape, tokens, mask, seed=seed, seconds=seconds)


def _full_batch(task: Task, batch_size: int) -> tuple[Tensor, Tensor | None]:
    """A validation batch of just that size, its rows repeated where the split has fewer."""
    batch = next(iter(task.evaluation_batches("validation", batch_size, 1)))
    rows = torch.arange(batch_size) % batch.tokens.shape[0]
    return batch.tokens[rows], None if batch.mask is None else batch.mask[rows]


def _measure_models(subjects: list[Subject], bench: Bench) -> Timed:
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    tokens, mask = _full_batch(task, bench.recipe.batch_size)
    models = _trained_models(subjects, task)
    passes: dict[tuple[str, Mode], Callable[[], object]] = {}
    for trial, model in models.items():
        passes[trial, "pass"] = _pass(model, tokens, mask)
        if task.shape.decodes:
            passes[trial, "step"] = stepper(model, tokens)
    rounds = time_rounds(passes)
    milliseconds: dict[str, dict[Mode, float]] = {trial: {} for trial in models}
    for (trial, mode), taken in rounds.medians().items():
        milliseconds[trial][mode] = taken
    joules: dict[str, float] = {}
    with torch.inference_mode():
        for trial in models:
            used = joules_per_sample(passes[trial, "pass"], tokens.shape[0], processors())
            if used is not None:
                joules[trial] = used
    return Timed(milliseconds, rounds.anchor_ms, rounds.alone, joules)


def forward_passes(subjects: Sequence[Subject], bench: Bench) -> dict[str, Callable[[], object]]:
    """Each trial's model on the same full validation batch, to be called for its time."""
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    tokens, mask = _full_batch(task, bench.recipe.batch_size)
    models = _trained_models(subjects, task)
    return {trial: _pass(model, tokens, mask) for trial, model in models.items()}


def _pass(model: Transformer, tokens: Tensor, mask: Tensor | None) -> Callable[[], object]:
    return lambda: model(tokens, mask)


def _trained_models(subjects: Sequence[Subject], task: Task) -> dict[str, Transformer]:
    models: dict[str, Transformer] = {}
    for subject in subjects:
        model = initial_model(subject.architecture, task, seed=0).eval()
        if subject.weights is not None:
            try:
                model.load_state_dict(load_weights(subject.weights))
            except CorruptCheckpoint as error:  # it computes as long with other weights
                log.warning("timed with fresh weights", trial=subject.trial, reason=str(error))
        models[subject.trial] = model
    return models
