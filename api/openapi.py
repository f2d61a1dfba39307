"""The OpenAPI document: generated from the schemas, with its errors as problem documents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.documents import YAML_TYPES
from api.errors import KINDS, MEDIA_TYPE
from nas.schemas import ProblemDocument

TAGS = [
    {"name": "jobs", "description": "Search jobs and their events."},
    {"name": "trials", "description": "The architectures that a job has tried."},
    {"name": "fronts", "description": "Pareto-optimal architectures."},
    {"name": "exports", "description": "Bundles for training."},
    {"name": "catalogue", "description": "What can be searched, and what it costs."},
    {"name": "datasets", "description": "A user's own data."},
    {"name": "service", "description": "For probes and monitoring."},
]

_TITLES = {kind.status: kind.title for kind in reversed(KINDS.values())}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that may refuse with these statuses."""
    return {
        status: {"model": ProblemDocument, "description": f"{_TITLES[status]}."}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Give the application its document, made when first asked for, and once."""
    making = threading.Lock()  # it takes half a second: twelve requests at once would take six

    def document() -> dict[str, Any]:
        with making:
            if app.openapi_schema is None:
                app.openapi_schema = _finished(
                    get_openapi(
                        title=app.title,
                        version=app.version,
                        summary=app.summary,
                        description=app.description,
                        routes=app.routes,
                        tags=TAGS,
                    )
                )
            return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way


def _finished(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what the generator leaves out, so that it admits what is accepted."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
            _problems_under_their_type(operation)
            _yaml_beside_json(operation)
            _parameters_without_null(operation)
    _lengths_of_lists(document["components"]["schemas"])
    _discriminators_required(document["components"]["schemas"])
    return document


def _problems_under_their_type(operation: dict[str, Any]) -> None:
    for response in operation["responses"].values():
        content = response.get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if reference.endswith("/ProblemDocument"):
            content[MEDIA_TYPE] = content.pop("application/json")


def _yaml_beside_json(operation: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        content[YAML_TYPES[0]] = content["application/json"]


def _parameters_without_null(operation: dict[str, Any]) -> None:
    """A parameter is left out; it cannot be null."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        members = [m for m in schema.get("anyOf", ()) if m != {"type": "null"}]
        if len(members) == 1:
            del schema["anyOf"]
            schema.update(members[0])


def _lengths_of_lists(schemas: dict[str, Any]) -> None:
    """Bounds on a list that is validated first come out as those of a string."""
    for place in _objects(schemas):
        if place.get("type") == "array":
            for wrong, right in (("minLength", "minItems"), ("maxLength", "maxItems")):
                if wrong in place:
                    place[right] = place.pop(wrong)


def _discriminators_required(schemas: dict[str, Any]) -> None:
    """The tag of a union's member has a default in Python, but a document must state it."""
    for place in _objects(schemas):
        discriminator = place.get("discriminator")
        if isinstance(discriminator, dict) and "mapping" in discriminator:
            for reference in discriminator["mapping"].values():
                member = schemas[reference.rpartition("/")[2]]
                required = member.setdefault("required", [])
                if discriminator["propertyName"] not in required:
                    required.insert(0, discriminator["propertyName"])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)
