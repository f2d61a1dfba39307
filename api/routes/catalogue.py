"""The catalogue: what can be searched, for what, by what means."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.documents import DocumentRoute
from api.openapi import problems
from nas.catalogue import description
from nas.schemas import Response
from search_spaces.space import SearchSpace, SpaceDefinition
from search_spaces.values import Scalar

router = APIRouter(prefix="/v1", tags=["catalogue"], route_class=DocumentRoute)


class SpaceSummary(Response):
    """A search space in short; ``size`` is the exact number of its architectures."""

    name: str
    version: int
    description: str
    causal: bool
    size: int


class SpaceDetail(SpaceSummary):
    """A search space with its definition and the values of each decision, by name."""

    definition: dict[str, Any]
    domains: dict[str, list[Scalar]]


class SpaceValidity(SpaceSummary):
    """A definition that can be used, and what it amounts to."""

    valid: Literal[True] = True
    domains: dict[str, list[Scalar]]


class Configurable(Response):
    """Something with settings: their JSON schema, and the defaults of those that have one."""

    model_config = ConfigDict(populate_by_name=True)

    name: str
    title: str
    description: str
    settings: dict[str, Any] = Field(alias="schema")
    defaults: dict[str, Any]


class Mechanism(Configurable):
    """An attention, feed-forward, halting or residual variant.

    causal: whether it may stand in a causal slot.  domains: what a space offers by default.
    """

    kind: str
    causal: bool
    complexity: str
    citation: str
    domains: dict[str, list[Scalar]]


class Task(Configurable):
    """What is trained for, what each rung measures, and the model's shape at the defaults."""

    causal: bool
    metrics: list[str]
    default_space: str
    shape: dict[str, Any]


class Strategy(Configurable):
    """What proposes architectures."""

    citation: str


class Metric(Response):
    """A named measurable."""

    name: str
    unit: str
    direction: Literal["minimize", "maximize"]
    known: str
    scale: Literal["linear", "log"]
    description: str


class SpacePage(Response):
    """All spaces."""

    items: list[SpaceSummary]
    next: None = None


class MechanismPage(Response):
    """All mechanisms."""

    items: list[Mechanism]
    next: None = None


class TaskPage(Response):
    """All tasks."""

    items: list[Task]
    next: None = None


class StrategyPage(Response):
    """All strategies."""

    items: list[Strategy]
    next: None = None


class MetricPage(Response):
    """All metrics."""

    items: list[Metric]
    next: None = None


@router.get("/spaces", operation_id="list_spaces")
def spaces() -> SpacePage:
    """The search spaces on offer."""
    return SpacePage.model_validate({"items": description.spaces()})


@router.get("/spaces/{name}", operation_id="get_space", responses=problems(404))
def space(name: str) -> SpaceDetail:
    """A search space by name, or by name@version."""
    return SpaceDetail.model_validate(description.space(name))


@router.post("/spaces/validate", operation_id="validate_space", responses=problems(400, 413, 415))
def validate(definition: SpaceDefinition) -> SpaceValidity:
    """Whether a definition of your own can be used, and how many architectures it holds."""
    found = SearchSpace(definition)
    return SpaceValidity(
        name=found.name,
        version=found.version,
        description=definition.description,
        causal=found.causal,
        size=found.size(),
        domains={name: list(domain.values) for name, domain in found.domains().items()},
    )


@router.get("/mechanisms", operation_id="list_mechanisms")
def mechanisms(
    kind: Literal["attention", "feedforward", "halting", "residual"] | None = None,
) -> MechanismPage:
    """The mechanisms on offer: domains, complexity, whether causal, citation."""
    return MechanismPage.model_validate({"items": description.mechanisms(kind)})


@router.get("/tasks", operation_id="list_tasks")
def tasks() -> TaskPage:
    """The tasks on offer."""
    return TaskPage.model_validate({"items": description.tasks()})


@router.get("/strategies", operation_id="list_strategies")
def strategies() -> StrategyPage:
    """The search strategies on offer."""
    return StrategyPage.model_validate({"items": description.strategies()})


@router.get("/metrics", operation_id="list_metrics")
def metrics() -> MetricPage:
    """The metrics: unit, direction, scale, and when they are known."""
    return MetricPage.model_validate({"items": description.metrics()})
