"""The only place where an error becomes a status: problem+json documents (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.pointers import document_problems, parameter_problem
from nas.errors import (
    Conflict,
    DataUnavailable,
    NasError,
    NotFound,
    StorageFailed,
    StoreUnavailable,
    Unsupported,
)
from nas.schemas import ErrorItem, ProblemDocument
from search_spaces.errors import InvalidInput, Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class RequestRefused(NasError):
    """A request that is refused before its content is looked at."""


class MalformedDocument(RequestRefused):
    """A body that is neither JSON nor YAML."""


class DocumentTooLarge(RequestRefused):
    """A body over its limit."""


class UnsupportedMediaType(RequestRefused):
    """A body of a kind that is not read here."""


class Misdirected(RequestRefused):
    """A request for a host that this service is not."""


class CrossSite(RequestRefused):
    """A change asked for by a page of another site."""


@dataclass(frozen=True)
class Kind:
    """How an error is told: its status, the last part of its type, its title."""

    status: int
    slug: str
    title: str


KINDS: dict[type[Exception], Kind] = {
    InvalidInput: Kind(422, "invalid-input", "The input cannot be used"),
    NotFound: Kind(404, "not-found", "There is no such thing"),
    Conflict: Kind(409, "conflict", "The state does not allow it"),
    DataUnavailable: Kind(409, "data-unavailable", "The data cannot be read"),
    Unsupported: Kind(422, "unsupported", "This combination is not supported"),
    StoreUnavailable: Kind(503, "store-unavailable", "The database cannot be reached"),
    StorageFailed: Kind(507, "storage-failed", "The data cannot be stored"),
    MalformedDocument: Kind(400, "malformed-document", "The body cannot be parsed"),
    DocumentTooLarge: Kind(413, "too-large", "The body is too large"),
    UnsupportedMediaType: Kind(
        415, "unsupported-media-type", "The body is of a kind not read here"
    ),
    Misdirected: Kind(421, "misdirected", "The request is for another host"),
    CrossSite: Kind(403, "cross-site", "Requests from other sites are refused"),
    ClientDisconnect: Kind(400, "incomplete", "The body broke off"),
}

HTTP_KINDS: dict[int, Kind] = {
    404: Kind(404, "no-such-path", "Nothing is at this path"),
    405: Kind(405, "method-not-allowed", "The path does not take this method"),
}

INTERNAL = Kind(500, "internal-error", "The service failed")


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    for error in KINDS:
        app.add_exception_handler(error, _known)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(LastResort)


def problem_response(
    kind: Kind,
    detail: str,
    problems: Sequence[Problem] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem document as a response."""
    document = ProblemDocument(
        type=f"urn:paretoformer:problem:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        errors=[
            ErrorItem(pointer=p.pointer, message=p.message, allowed=list(p.allowed))
            for p in problems
        ],
    )
    return JSONResponse(
        document.model_dump(mode="json"), kind.status, headers=headers, media_type=MEDIA_TYPE
    )


def kind_of(error: Exception) -> Kind:
    """The kind of an error of ours: that of its nearest class in the table."""
    return next((KINDS[c] for c in type(error).__mro__ if c in KINDS), INTERNAL)


async def _known(request: Request, error: Exception) -> JSONResponse:
    kind = kind_of(error)
    problems = error.problems if isinstance(error, InvalidInput) else ()
    detail = str(error)
    if problems and getattr(request.scope.get("route"), "body_field", None) is None:
        # there is no document to point into: parameters go by their names
        problems = tuple(replace(p, pointer=p.pointer.removeprefix("/")) for p in problems)
        detail = _joined(problems)
    headers = {"Retry-After": "5"} if kind.status == 503 else None
    return problem_response(kind, detail, problems, headers)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - narrows for the type checker
    field = getattr(request.scope.get("route"), "body_field", None)
    document = field.field_info.annotation if field else None
    in_body = [{**e, "loc": e["loc"][1:]} for e in error.errors() if e["loc"][0] == "body"]
    problems = document_problems(in_body, document, error.body)
    problems += [parameter_problem(e) for e in error.errors() if e["loc"][0] != "body"]
    return problem_response(KINDS[InvalidInput], _joined(problems), problems)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows for the type checker
    headers = dict(error.headers or {})
    kind = HTTP_KINDS.get(error.status_code)
    if kind is None:
        kind = Kind(error.status_code, "http-error", str(error.detail))
        return problem_response(kind, str(error.detail), headers=headers)
    detail = f"{request.method} {request.url.path}: {kind.title.lower()}"
    if kind.status == 405 and (methods := _methods(request)):
        # the router knows the methods of one of the path's routes only
        headers["Allow"] = ", ".join(methods)
        detail += f" (allowed: {headers['Allow']})"
    return problem_response(kind, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods that the path takes, as far as they are documented."""
    found: set[str] = set()
    for path, operations in request.app.openapi()["paths"].items():
        pattern, _, _ = compile_path(path)
        if pattern.match(request.url.path):
            found.update(method.upper() for method in operations)
    return sorted(found)


def _joined(problems: Sequence[Problem]) -> str:
    return "; ".join(str(problem) for problem in problems)


class LastResort:
    """ASGI middleware that answers when a route fails in a way that nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if begun or scope["type"] != "http":
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            detail = "The fault is ours; the service's log says more."
            await problem_response(INTERNAL, detail)(scope, receive, send)
