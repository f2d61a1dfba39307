"""Bodies that are documents: JSON or YAML, bounded in size, both read into the same values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any, ClassVar

import yaml
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from api.errors import DocumentTooLarge, MalformedDocument, UnsupportedMediaType

JOB_BYTES = 1_000_000
LARGE_BYTES = 16_000_000
YAML_TYPES = ("application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml")
"""The first is the registered one (RFC 9512)."""


class DocumentRoute(APIRoute):
    """A route whose body, if it has one, is a document of at most ``limit`` bytes."""

    limit: ClassVar[int] = JOB_BYTES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, behind the reading of the body."""
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler
        limit = self.limit

        async def read_then_handle(request: Request) -> Response:
            body = await _read(request, limit)
            kind = _media_type(request)
            value = await run_in_threadpool(parse, body, kind) if body else None
            return await handler(_DocumentRequest(request, body, value))

        return read_then_handle


class LargeDocumentRoute(DocumentRoute):
    """A route that takes many architectures at once."""

    limit: ClassVar[int] = LARGE_BYTES


class _DocumentRequest(Request):
    """A request whose body is read and parsed, and counts as JSON from here on."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        headers = [(k, v) for k, v in request.scope["headers"] if k != b"content-type"]
        headers.append((b"content-type", b"application/json"))
        super().__init__({**request.scope, "headers": headers}, request.receive)
        self._document = body, value

    async def body(self) -> bytes:
        """The body as it came."""
        return self._document[0]

    async def json(self) -> Any:
        """The value that the body says, whether it was written in JSON or in YAML."""
        return self._document[1]


def parse(body: bytes, media_type: str) -> Any:
    """The value of a JSON or YAML document.

    Raises:
        MalformedDocument: saying where it breaks off.
        UnsupportedMediaType: for all else.
    """
    if media_type in YAML_TYPES:
        read: Callable[[str], Any] = _parse_yaml
    elif media_type == "application/json" or media_type.endswith("+json"):
        read = _parse_json
    else:
        raise UnsupportedMediaType(
            f"the body is {media_type or 'of no stated type'}; read are application/json, "
            + ", ".join(YAML_TYPES[:2])
        )
    try:
        return read(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise MalformedDocument(f"the body is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise MalformedDocument("the body is nested too deeply") from error


def _parse_json(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise MalformedDocument(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse, parse_float=_finite)
    except ValueError as error:
        raise MalformedDocument(f"not JSON: {error}") from error


def _parse_yaml(text: str) -> Any:
    try:
        # a subclass of SafeLoader, which builds plain values only
        return yaml.load(text, Loader=_JsonLoader)  # noqa: S506
    except yaml.YAMLError as error:
        raise MalformedDocument(f"not YAML that says what JSON can: {error}") from error
    except (ValueError, LookupError) as error:
        # what PyYAML lets through of a value that its tag does not fit
        raise MalformedDocument(f"a value of the YAML cannot be read: {error}") from error


class _JsonLoader(yaml.SafeLoader):
    """YAML as far as it says what JSON can: no dates, no sets, no aliases, no key twice.

    Aliases are refused since a few lines of them unfold to gigabytes.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads it from the class
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node, if it is not an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            message = f"the alias *{event.anchor} is not taken: write it out"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """An object, whose keys are strings and distinct."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                refused = "a key must be a string"
            elif key.value in seen:
                refused = f"the key {key.value!r} is given twice"
            else:
                seen.add(key.value)
                continue
            raise yaml.constructor.ConstructorError(None, None, refused, key.start_mark)
        return super().construct_mapping(node, deep=deep)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond what a number can be")
    return value


def _finite_float(loader: _JsonLoader, node: Any) -> float:
    return _finite(repr(loader.construct_yaml_float(node)))


def _refuse_tag(loader: _JsonLoader, node: Any) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"values of type {node.tag} are not taken", node.start_mark
    )


_JsonLoader.add_constructor("tag:yaml.org,2002:float", _finite_float)
for _tag in ("binary", "omap", "pairs", "set", "timestamp"):
    _JsonLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse_tag)


def _media_type(request: Request) -> str:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return message.get_content_type() if message["content-type"] else ""


async def _read(request: Request, limit: int) -> bytes:
    """The body.

    A body that is over the limit is read on for a while and thrown away: most clients look at the
    answer only when they have sent all.

    Raises:
        DocumentTooLarge: when it has more than ``limit`` bytes.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > 8 * limit:
            break
    if size > limit:
        raise DocumentTooLarge(f"the body has more than {limit:,} bytes")
    return b"".join(chunks)
