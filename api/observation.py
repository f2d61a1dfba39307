"""Prometheus metrics: requests as they pass, and the jobs and streams at the moment of asking."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nas.errors import NasError

logger = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observations:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "nas_http_requests",
            "Requests answered, by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "nas_http_request_seconds",
            "Time to the end of an answer; event streams are left out.",
            ("method", "route"),
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one answer; ``seconds`` is None for streams."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(method, route).observe(seconds)

    def gauge(
        self, name: str, description: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Add a gauge with one label, whose values are read when they are asked for."""
        self.registry.register(_Gauge(name, description, label, read))


class _Gauge(Collector):
    def __init__(
        self, name: str, description: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        self._about = name, description, label
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """The name alone: nothing is read when the gauge is added."""
        name, description, label = self._about
        return [GaugeMetricFamily(name, description, labels=[label])]

    def collect(self) -> Iterable[Metric]:
        """The values of this moment; none while they cannot be read."""
        name, description, label = self._about
        family = GaugeMetricFamily(name, description, labels=[label])
        try:
            values = self._read()
        except NasError as error:
            # the other metrics are wanted most when the database is away
            logger.warning("%s cannot be read: %s", name, error)
            return [family]
        for value, number in values.items():
            family.add_metric([value], number)
        return [family]


class Observe:
    """ASGI middleware that counts and times every request."""

    def __init__(self, app: ASGIApp, observations: Observations) -> None:
        self._app = app
        self._observations = observations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, stream = 500, False

        async def watched(message: Message) -> None:
            nonlocal status, stream
            if message["type"] == "http.response.start":
                status = message["status"]
                stream = any(
                    name == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message["headers"]
                )
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # by the route's template: ids as labels would make a series of every job
            route = getattr(scope.get("route"), "path", "none")
            seconds = None if stream else time.perf_counter() - started
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._observations.request(method, route, status, seconds)
