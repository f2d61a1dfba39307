"""Effective contexts on the cluster: a Ray task for each model, in the place of a segment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import structlog
import torch
from ray.exceptions import RayError

from nas.errors import CorruptCheckpoint, TrialFailed
from nas.schemas import Resources
from nas.tasks import build_task
from nas.training.checkpoint import load_weights
from nas.training.device import resolve_device
from nas.training.evaluation import context_used
from nas.training.loop import initial_model
from workers.measuring import Subject
from workers.segments import Bench, StopFlag

log = structlog.get_logger()


@dataclass(frozen=True)
class Context:
    """How much context a trial's model uses, in tokens, and the seconds that it took to tell."""

    trial: str
    tokens: float
    seconds: float


def contexts_on_cluster(
    subjects: Sequence[Subject], bench: Bench, resources: Resources
) -> Iterator[Context]:
    """As they come in, of those whose weights are kept; none of those that the job's end cuts off.

    A model that cannot be measured is told in the log and left out.
    """
    measure = ray.remote(num_cpus=resources.threads, num_gpus=resources.gpus, max_retries=2)(
        _measure
    )
    pending = {measure.remote(s, s.weights, bench): s.trial for s in subjects if s.weights}
    while pending:
        (done,), _ = ray.wait(list(pending), num_returns=1)
        trial = pending.pop(done)
        try:
            context: Context | None = ray.get(done)
        except RayError as error:
            log.warning("context not measured", trial=trial, reason=str(error).splitlines()[-1])
            continue
        if context is not None:
            yield context


def _measure(subject: Subject, weights: Path, bench: Bench) -> Context | None:
    torch.set_num_threads(bench.threads)
    began = time.perf_counter()
    task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
    device = resolve_device(bench.device)
    model = initial_model(subject.architecture, task, seed=0)
    try:
        model.load_state_dict(load_weights(weights))
        model.to(device)
        with StopFlag(bench.stop_file) as flag:
            tokens = context_used(model, task, bench.recipe, device, lambda: flag.raised)
    except (CorruptCheckpoint, TrialFailed) as error:
        log.warning("context not measured", trial=subject.trial, reason=str(error))
        return None
    if tokens is None:
        return None
    return Context(subject.trial, tokens, time.perf_counter() - began)
