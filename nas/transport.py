"""How the Python client reaches the HTTP service: values out, pages, typed errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from nas.errors import NasError
from nas.schemas import ProblemDocument
from search_spaces.errors import Problem

R = TypeVar("R", bound=BaseModel)


class ServiceError(NasError):
    """The service refused a request; ``problem`` says what was wrong, where, what is allowed."""

    def __init__(self, problem: ProblemDocument) -> None:
        faults = [str(Problem(e.pointer, e.message, tuple(e.allowed))) for e in problem.errors]
        head = f"{problem.title} ({problem.status})"
        super().__init__("\n  ".join([head, *(faults or [problem.detail])]))
        self.problem = problem


class ServiceUnreachable(NasError):
    """Nothing, or nothing of ours, answers at the URL."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no service answers at {url} ({reason}): is `nas serve` running there?")
        self.url = url


class Connection:
    """A connection to the service at ``url``; also a context manager, which closes it.

    timeout: seconds for one request.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        # a proxy from the environment is not asked for a service on this machine
        with self._reached():
            local = httpx.URL(self.url).host in ("localhost", "127.0.0.1", "::1")
        self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _value(self, kind: type[R], method: str, url: str, **request: Any) -> R:
        response = self._send(method, url, **request)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            reason = f"what answers is not ours: {method} {url} gave no {kind.__name__}"
            raise ServiceUnreachable(self.url, reason) from error

    def _object(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        return dict(self._send(method, url, **request).json())

    def _items(self, url: str, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return list(self._object("GET", url, params=query or {})["items"])

    def _pages(self, kind: type[R], url: str, query: Mapping[str, Any]) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            page: Any = self._value(kind, "GET", url, params={**query, "cursor": cursor})
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        if "params" in request:
            request["params"] = {k: v for k, v in request["params"].items() if v is not None}
        with self._reached():
            response = self._http.request(method, url, **request)
        return self._checked(response)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise ServiceUnreachable(self.url, "it took too long") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServiceUnreachable(self.url, str(error) or type(error).__name__) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        content = response.read()
        try:
            problem = ProblemDocument.model_validate_json(content)
        except ValidationError as error:
            reason = f"what answers is not ours: {response.status_code} {response.reason_phrase}"
            raise ServiceUnreachable(self.url, reason) from error
        raise ServiceError(problem)
