"""Pareto fronts, and how far to trust them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import WithJsonSchema

from api.dependencies import UseCases
from api.openapi import problems
from nas.catalogue.metrics import METRICS
from nas.catalogue.tasks import TASKS
from nas.reports import TrustReport
from nas.schemas import Constraint, Front, TaskFront
from search_spaces.errors import InvalidInput, Problem

MOST_OBJECTIVES = 5
_NAMES = "|".join(METRICS)
_LIST_SCHEMA = {
    "type": "string",
    "pattern": f"^({_NAMES})(,({_NAMES})){{0,{MOST_OBJECTIVES - 1}}}$",
}
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]

router = APIRouter(prefix="/v1", tags=["fronts"])


class FrontQuery(BaseModel):
    """Which front is asked for. A bound on each metric is added below."""

    model_config = ConfigDict(extra="forbid")

    objectives: Annotated[str | None, WithJsonSchema(_LIST_SCHEMA)] = Field(
        None, description="Metrics with commas between them; by default the job's objectives."
    )
    verified: bool = Field(False, description="Only members trained again with fresh seeds.")
    fidelity: Literal["full", "any"] = Field(
        "full", description="`any` takes in trials of lower rungs; their `fidelity` tells."
    )

    def names(self) -> list[str] | None:
        """The objectives that are asked for.

        Raises:
            InvalidInput: one is no metric, or there are too many.
        """
        if self.objectives is None:
            return None
        names = self.objectives.split(",")
        unknown = [name for name in names if name not in METRICS]
        found = [
            Problem("objectives", f"{name!r} is not a metric", tuple(METRICS)) for name in unknown
        ]
        found += [
            Problem("objectives", f"{name} is named twice")
            for name in dict.fromkeys(names)
            if names.count(name) > 1 and name in METRICS
        ]
        if len(names) > MOST_OBJECTIVES:
            found.append(Problem("objectives", f"more than {MOST_OBJECTIVES} objectives"))
        if found:
            raise InvalidInput(found)
        return names

    def bounds(self) -> list[Constraint]:
        """The bounds that are asked for.

        Raises:
            InvalidInput: a least value above a greatest.
        """
        found = list(self._bounds())
        crossed = [
            Problem(f"min.{bound.metric}", f"{bound.min:g} is more than max.{bound.metric}")
            for bound in found
            if bound.min is not None and bound.max is not None and bound.min > bound.max
        ]
        if crossed:
            raise InvalidInput(crossed)
        return found

    def _bounds(self) -> Iterator[Constraint]:
        for metric in METRICS:
            low, high = getattr(self, f"min_{metric}"), getattr(self, f"max_{metric}")
            if low is not None or high is not None:
                yield Constraint(metric=metric, min=low, max=high)


_BOUNDS: dict[str, Any] = {
    f"{side}_{name}": (
        Finite | None,
        Field(None, alias=f"{side}.{name}", description=f"{word} {name}, in {metric.unit}."),
    )
    for side, word in (("max", "Greatest"), ("min", "Least"))
    for name, metric in METRICS.items()
}
BoundedFrontQuery = create_model("BoundedFrontQuery", __base__=FrontQuery, **_BOUNDS)


class TaskFrontQuery(BoundedFrontQuery):
    """Which front across jobs is asked for."""

    task: str | None = Field(
        None,
        description="A task's name: its newest job decides the rest.",
        json_schema_extra={"enum": list(TASKS)},
    )
    job: str | None = Field(None, description="A job: of its task, data and batch size.")


@router.get("/jobs/{job_id}/pareto", operation_id="get_front", responses=problems(404))
def front(
    job_id: str,
    jobs: UseCases,
    query: Annotated[BoundedFrontQuery, Query()],
) -> Front:
    """The architectures that no other is better than in every objective.

    Bounds are written as `max.latency_ms=5` or `min.accuracy=0.6`.
    """
    asked: FrontQuery = query
    return jobs.front(
        job_id,
        objectives=asked.names(),
        bounds=asked.bounds(),
        verified=asked.verified,
        fidelity=asked.fidelity,
    )


@router.get("/jobs/{job_id}/report", operation_id="get_report", responses=problems(404))
def report(job_id: str, jobs: UseCases) -> TrustReport:
    """What a job's numbers are worth: rungs, predictions, seeds, and warnings in words.

    Of a job that has not ended, as far as it has come.
    """
    return jobs.report(job_id)


@router.get("/pareto", operation_id="get_task_front", responses=problems(404))
def task_front(jobs: UseCases, query: Annotated[TaskFrontQuery, Query()]) -> TaskFront:
    """The same across all jobs of one task, its data and batch size, each architecture once.

    Latencies are compared on one device alone. Jobs' constraints do not count, bounds do.
    """
    asked: FrontQuery = query
    return jobs.task_front(
        query.task,
        query.job,
        objectives=asked.names(),
        bounds=asked.bounds(),
        verified=asked.verified,
        fidelity=asked.fidelity,
    )
