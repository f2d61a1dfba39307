"""What routes are given: the use cases, the tailer, and requests without unknown parameters."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from api.tailer import Tailer
from nas.jobs import Jobs
from nas.settings import Settings
from nas.store import Store
from search_spaces.errors import InvalidInput, Problem


def _use_cases(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _tailer(request: Request) -> Tailer:
    tailer: Tailer = request.app.state.tailer
    return tailer


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


UseCases: TypeAlias = Annotated[Jobs, Depends(_use_cases)]
TheTailer: TypeAlias = Annotated[Tailer, Depends(_tailer)]
TheStore: TypeAlias = Annotated[Store, Depends(_store)]
TheSettings: TypeAlias = Annotated[Settings, Depends(_settings)]


def known_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not know, or that are given twice.

    The generated document is what a route is measured against, so both say the same.

    Raises:
        InvalidInput: naming each of them.
    """
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    operations = request.app.openapi()["paths"].get(request.scope["route"].path_format)
    if operations is None:
        return  # a page for people: links to it may carry anything
    parameters = operations[request.method.lower()].get("parameters", ())
    known = tuple(p["name"] for p in parameters if p["in"] == "query")
    problems = [
        Problem(name, "unknown parameter", known)
        if name not in known
        else Problem(name, "given more than once")
        for name in dict.fromkeys(given)
        if name not in known or given.count(name) > 1
    ]
    if problems:
        raise InvalidInput(problems)
