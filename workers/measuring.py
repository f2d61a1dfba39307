"""Latency on the cluster: a Ray task holds all CPUs of a node, so nothing trains meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import structlog
import torch
from ray.exceptions import RayTaskError
from torch import Tensor

from nas.costs import LatencyTable
from nas.errors import CorruptCheckpoint
from nas.measure.latency import measure_models, measure_table
from nas.tasks import build_task
from nas.tasks.base import Task
from nas.training.checkpoint import load_weights
from nas.training.loop import initial_model
from search_spaces import Architecture
from workers.capacity import nodes
from workers.segments import Bench

log = structlog.get_logger()

WAIT_SECONDS = 120.0
"""So long a measurement waits for a node to fall idle: others may train on a shared cluster."""


@dataclass(frozen=True)
class Subject:
    """A trained model to be timed: its trial, its architecture, its weights where they are kept."""

    trial: str
    architecture: Architecture
    weights: Path | None


def node_cpus() -> float:
    """CPUs of the smallest node that trains: a measurement takes them all."""
    return min((node["CPU"] for node in nodes()), default=1.0)


def table_on_cluster(
    architectures: Sequence[Architecture], bench: Bench, seed: int
) -> LatencyTable:
    """The latency table of the blocks of these architectures, measured on an idle node."""
    table: LatencyTable = _on_idle_node(_measure_table, list(architectures), bench, seed)
    return table


def models_on_cluster(subjects: Sequence[Subject], bench: Bench) -> dict[str, float]:
    """Milliseconds of each trial's model on a validation batch, measured on an idle node."""
    measured: dict[str, float] = _on_idle_node(_measure_models, list(subjects), bench)
    return measured


def _on_idle_node(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run on all CPUs of a node; on one CPU when no node falls idle within a while."""
    exclusive = ray.remote(num_cpus=node_cpus(), max_retries=2)(work).remote(*arguments)
    ready, _ = ray.wait([exclusive], timeout=WAIT_SECONDS)
    if ready:
        return _result(exclusive)
    ray.cancel(exclusive)
    log.warning("no node falls idle: measuring beside other work")
    return _result(ray.remote(num_cpus=1, max_retries=2)(work).remote(*arguments))


def _result(reference: Any) -> Any:
    """What a task returned; what it raised is raised here as it was, without Ray's wrapping."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise


def _measure_table(architectures: list[Architecture], bench: Bench, seed: int) -> LatencyTable:
    alone = _alone()
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    tokens, mask = _full_batch(task, bench.recipe.batch_size)
    return measure_table(architectures, task.shape, tokens, mask, alone=alone, seed=seed)


def _full_batch(task: Task, batch_size: int) -> tuple[Tensor, Tensor | None]:
    """A validation batch of just that size, its rows repeated where the split has fewer."""
    batch = next(iter(task.evaluation_batches("validation", batch_size, 1)))
    rows = torch.arange(batch_size) % batch.tokens.shape[0]
    return batch.tokens[rows], None if batch.mask is None else batch.mask[rows]


def _measure_models(subjects: list[Subject], bench: Bench) -> dict[str, float]:
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    tokens, mask = _full_batch(task, bench.recipe.batch_size)
    passes = {}
    for subject in subjects:
        model = initial_model(subject.architecture, task, seed=0).eval()
        if subject.weights is not None:
            try:
                model.load_state_dict(load_weights(subject.weights))
            except CorruptCheckpoint as error:  # it computes as long with other weights
                log.warning("timed with fresh weights", trial=subject.trial, reason=str(error))
        passes[subject.trial] = lambda model=model: model(tokens, mask)
    return measure_models(passes)


def _alone() -> bool:
    """Whether the node is idle but for us: the work of others would show in the latencies."""
    busy_cores = psutil.cpu_percent(interval=0.5) / 100 * (psutil.cpu_count() or 1)
    return busy_cores < 0.5
