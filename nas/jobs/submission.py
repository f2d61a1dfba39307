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
from nas.catalogue.tasks import PYTHON_SOURCE, TextLM
from nas.schemas import Constraint, JobRequest
from search_spaces import SearchSpace, SpaceDefinition, load_space
from search_spaces.errors import InvalidInput, Problem, pointer

Sizes: TypeAlias = Mapping[str, int]
"""The uploaded data sets and their bytes."""


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


def resolve(request: JobRequest, sizes: Sizes) -> Submission:
    """Check a request against the catalogue and the data sets, and pin its space.

    Raises:
        InvalidInput: with every problem that it has.
    """
    space, found = _space(request)
    found += _unusable(request, sizes)
    if space is None or found:
        raise InvalidInput(found)
    document = request.model_dump(mode="json")
    label = f"{space.name}@{space.version}"
    definition = space.definition.model_dump(mode="json")
    document["space"] = definition if isinstance(request.space, SpaceDefinition) else label
    return Submission(document, label, definition, uploaded_dataset(request))


def uploaded_dataset(request: JobRequest) -> str | None:
    """The uploaded data set that a job needs, by name."""
    task = request.task
    if isinstance(task, TextLM) and task.dataset != PYTHON_SOURCE:
        return task.dataset
    return None


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


def _unusable(request: JobRequest, sizes: Sizes) -> list[Problem]:
    task = request.task
    measured = tuple(
        name
        for name, metric in METRICS.items()
        if metric.searchable and (metric.cost or name in task.metrics)
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
    if fidelity.min_steps > fidelity.max_steps:
        problems.append(
            Problem(
                "/fidelity/min_steps",
                f"{fidelity.min_steps} is more than max_steps, {fidelity.max_steps}",
            )
        )
    bounds = request.budget.model_dump()
    if all(bound is None for bound in bounds.values()):
        problems.append(Problem("/budget", "a budget needs a bound", tuple(bounds)))
    if isinstance(task, TextLM):
        problems += _unusable_text(task, sizes)
    problems += (
        Problem(pointer(where), "must be a finite number")
        for where in _infinite(request.model_dump())
    )
    return problems


def _unusable_text(task: TextLM, sizes: Sizes) -> Iterator[Problem]:
    if task.dataset == PYTHON_SOURCE:
        return
    size = sizes.get(task.dataset)
    if size is None:
        yield Problem(
            "/task/dataset",
            f"there is no data set {task.dataset}",
            (PYTHON_SOURCE, *sorted(sizes)),
        )
    elif size < task.minimum_bytes():
        yield Problem(
            "/task/dataset",
            f"data set {task.dataset} has {size} bytes; sequences of {task.sequence_length} need "
            f"at least {task.minimum_bytes()}",
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
        return space, []
    where = "/space/causal" if isinstance(wanted, SpaceDefinition) else "/space"
    return space, [
        Problem(
            where,
            f"{space.name} is a bidirectional space and {request.task.name} a causal task",
            space_names(causal),
        )
    ]


def _infinite(document: Any, where: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _infinite(value, (*where, key))
    elif isinstance(document, list | tuple):
        for i, value in enumerate(document):
            yield from _infinite(value, (*where, i))
    elif isinstance(document, float) and not math.isfinite(document):
        yield where
