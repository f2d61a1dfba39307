"""What a job must satisfy beyond its schema, and the document that is stored when it does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nas.catalogue.metrics import METRICS
from nas.catalogue.spaces import default_space, space_names
from nas.catalogue.strategies import STRATEGIES
from nas.catalogue.tasks import PYTHON_SOURCE, TASKS, TaskConfig
from nas.schemas import Constraint, JobRequest
from nas.store.records import DatasetRecord
from search_spaces import SearchSpace, SpaceDefinition, load_space
from search_spaces.errors import InvalidInput, Problem, pointer

OF_DECODING = ("decoding_memory_mb", "step_latency_ms")
"""Metrics that encoders do not have."""

Uploads: TypeAlias = Mapping[str, DatasetRecord]
"""The uploaded data sets by name."""


@dataclass(frozen=True)
class Submission:
    """A job that can be queued: its request with the space pinned, and what that resolves to."""

    request: dict[str, Any]
    space: str
    space_definition: dict[str, Any]
    dataset: str | None


def digest(request: JobRequest) -> str:
    """SHA-256 of a request as it was given: equal for equal requests."""
    document = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode()).hexdigest()


def resolve(request: JobRequest, uploads: Uploads) -> Submission:
    """Check a request against the catalogue and the data sets, and pin its space.

    Raises:
        InvalidInput: with every problem that it has.
    """
    space, found = _space(request)
    found += _unusable(request, uploads)
    if space is None or found:
        raise InvalidInput(found)
    document = request.model_dump(mode="json")
    label = f"{space.name}@{space.version}"
    definition = space.definition.model_dump(mode="json")
    document["space"] = definition if isinstance(request.space, SpaceDefinition) else label
    return Submission(document, label, definition, request.task.uploaded)


def bound_problems(bounds: Iterable[tuple[str, Constraint]]) -> Iterator[Problem]:
    """What is wrong with bounds on metrics, each at its pointer."""
    for where, bound in bounds:
        if bound.metric not in METRICS:
            yield Problem(f"{where}/metric", f"{bound.metric!r} is not a metric", tuple(METRICS))
        if bound.min is None and bound.max is None:
            yield Problem(where, "a constraint needs a bound", ("min", "max"))
        elif bound.min is not None and bound.max is not None and bound.min > bound.max:
            yield Problem(f"{where}/min", f"{bound.min:g} is more than max, {bound.max:g}")


def objective_problems(objectives: Iterable[str], measured: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with objectives where these metrics can be had."""
    allowed = tuple(measured)
    seen: set[str] = set()
    for i, name in enumerate(objectives):
        if name in seen:
            yield Problem(f"/objectives/{i}", f"{name} is named twice")
        elif name not in METRICS:
            yield Problem(f"/objectives/{i}", f"{name!r} is not a metric", allowed)
        elif not METRICS[name].searchable:
            yield Problem(f"/objectives/{i}", f"{name} is measured, not searched for", allowed)
        elif name not in allowed:
            yield Problem(f"/objectives/{i}", f"the task does not measure {name}", allowed)
        seen.add(name)


def _unusable(request: JobRequest, uploads: Uploads) -> list[Problem]:
    task = request.task
    unknown = () if task.shape().decodes else OF_DECODING
    measured = tuple(
        name
        for name, metric in METRICS.items()
        if metric.searchable and name not in unknown and (metric.cost or name in task.metrics)
    )
    problems = list(objective_problems(request.objectives, measured))
    problems += bound_problems(
        (f"/constraints/{i}", bound) for i, bound in enumerate(request.constraints)
    )
    problems += (
        Problem(f"/constraints/{i}/metric", f"the task does not measure {bound.metric}", measured)
        for i, bound in enumerate(request.constraints)
        if bound.metric in METRICS and bound.metric not in measured
    )
    fidelity = request.fidelity
    if fidelity.scheme != "full" and fidelity.min_steps > fidelity.max_steps:
        problems.append(
            Problem(
                "/fidelity/min_steps",
                f"{fidelity.min_steps} is more than max_steps, {fidelity.max_steps}",
            )
        )
    problems += _unusable_budget(request)
    problems += (problem.under("/task") for problem in _unusable_data(task, uploads))
    problems += _unusable_elsewhere(request, uploads)
    problems += (
        Problem(pointer(where), "must be a finite number")
        for where in _infinite(request.model_dump())
    )
    return problems


def _unusable_budget(request: JobRequest) -> Iterator[Problem]:
    bounds = request.budget.model_dump(exclude={"tolerance"})
    tolerance = request.budget.tolerance
    if all(bound is None for bound in bounds.values()):
        message = "a budget needs a bound"
        if tolerance is not None:
            message += " beside the tolerance, which may never be met"
        yield Problem("/budget", message, tuple(bounds))
    if tolerance is not None and not request.strategy.estimates_improvement:
        yield Problem(
            "/budget/tolerance",
            f"{request.strategy.name} does not estimate what is still to be gained",
            tuple(name for name, kind in STRATEGIES.items() if kind.estimates_improvement),
        )


def _unusable_elsewhere(request: JobRequest, uploads: Uploads) -> Iterator[Problem]:
    """What is wrong with the other tasks that verification is to train on."""
    own = request.task.uploaded
    for i, task in enumerate(request.verification.also):
        where = f"/verification/also/{i}"
        if task.uploaded in (None, own):
            yield from (problem.under(where) for problem in _unusable_data(task, uploads))
        else:  # a job holds one data set, which cannot be removed while it is needed
            message = f"verification takes no uploaded data but the job's own, not {task.uploaded}"
            yield Problem(f"{where}/dataset", message, (PYTHON_SOURCE, *((own,) if own else ())))


def _unusable_data(task: TaskConfig, uploads: Uploads) -> Iterator[Problem]:
    name = task.uploaded
    if name is None:
        return
    fitting = [n for n, data in sorted(uploads.items()) if data.kind == task.data_kind]
    data = uploads.get(name)
    if data is None or data.kind != task.data_kind:
        message = (
            f"there is no data set {name}"
            if data is None
            else f"{task.name} needs {task.data_kind} data, and {name} is {data.kind}"
        )
        yield Problem("/dataset", message, (PYTHON_SOURCE, *fitting))
    elif data.bytes < task.minimum_bytes():
        yield Problem(
            "/dataset",
            f"data set {name} has {data.bytes} bytes; {task.name} with these settings needs at "
            f"least {task.minimum_bytes()}",
        )


def _space(request: JobRequest) -> tuple[SearchSpace | None, list[Problem]]:
    causal = request.task.shape().causal
    wanted = default_space(causal) if request.space is None else request.space
    if isinstance(wanted, str) and wanted not in space_names():
        return None, [Problem("/space", f"there is no space {wanted}", space_names())]
    try:
        space = load_space(wanted)
    except InvalidInput as error:
        return None, [problem.under("/space") for problem in error.problems]
    if space.causal or not causal:  # what can be causal can be bidirectional as well
        return space, [
            Problem(
                f"/verification/also/{i}/name",
                f"{space.name} is a bidirectional space and {task.name} a causal task",
                _bidirectional_tasks(),
            )
            for i, task in enumerate(request.verification.also)
            if task.shape().causal and not space.causal
        ]
    where = "/space/causal" if isinstance(wanted, SpaceDefinition) else "/space"
    return space, [
        Problem(
            where,
            f"{space.name} is a bidirectional space and {request.task.name} a causal task",
            space_names(causal),
        )
    ]


def _bidirectional_tasks() -> tuple[str, ...]:
    return tuple(
        name
        for name, kind in TASKS.items()
        if not kind.model_validate({"name": name}).shape().causal
    )


def _infinite(document: Any, where: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _infinite(value, (*where, key))
    elif isinstance(document, list | tuple):
        for i, value in enumerate(document):
            yield from _infinite(value, (*where, i))
    elif isinstance(document, float) and not math.isfinite(document):
        yield where
