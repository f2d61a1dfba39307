"""Latency on the cluster: a Ray task holds all CPUs of a node, so nothing trains meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import structlog

from nas.catalogue.tasks import TaskShape
from nas.costs import LatencyTable
from nas.errors import CorruptCheckpoint
from nas.measure.latency import measure_models, measure_table
from nas.tasks import build_task
from nas.training.checkpoint import load_weights
from nas.training.loop import initial_model
from search_spaces import Architecture
from workers.capacity import nodes
from workers.segments import Bench

log = structlog.get_logger()


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
    architectures: Sequence[Architecture], shape: TaskShape, batch_size: int, seed: int
) -> LatencyTable:
    """The latency table of the blocks of these architectures, measured on an idle node."""
    task = ray.remote(num_cpus=node_cpus(), max_retries=2)(_measure_table)
    table: LatencyTable = ray.get(task.remote(list(architectures), shape, batch_size, seed))
    return table


def models_on_cluster(subjects: Sequence[Subject], bench: Bench) -> dict[str, float]:
    """Milliseconds of each trial's model on a validation batch, measured on an idle node."""
    task = ray.remote(num_cpus=node_cpus(), max_retries=2)(_measure_models)
    measured: dict[str, float] = ray.get(task.remote(list(subjects), bench))
    return measured


def _measure_table(
    architectures: list[Architecture], shape: TaskShape, batch_size: int, seed: int
) -> LatencyTable:
    return measure_table(architectures, shape, batch_size, alone=_alone(), seed=seed)


def _measure_models(subjects: list[Subject], bench: Bench) -> dict[str, float]:
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    batch = next(iter(task.evaluation_batches("validation", bench.recipe.batch_size, 1)))
    passes = {}
    for subject in subjects:
        model = initial_model(subject.architecture, task, seed=0).eval()
        if subject.weights is not None:
            try:
                model.load_state_dict(load_weights(subject.weights))
            except CorruptCheckpoint as error:  # it computes as long with other weights
                log.warning("timed with fresh weights", trial=subject.trial, reason=str(error))
        passes[subject.trial] = lambda model=model: model(batch.tokens, batch.mask)
    return measure_models(passes)


def _alone() -> bool:
    """Whether the machine was idle but for us: the load of others shows in the latencies."""
    return os.getloadavg()[0] < 0.5 * (os.cpu_count() or 1)
