"""For probes and monitoring."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response, status
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.dependencies import TheSettings, TheStore
from nas.jobs.health import Readiness, readiness

METRICS = {
    "description": "Prometheus' text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
NOT_READY = {"model": Readiness, "description": "Not ready, and why."}

router = APIRouter(tags=["service"])


@router.get("/healthz", operation_id="health")
def health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    operation_id="readiness",
    responses={status.HTTP_503_SERVICE_UNAVAILABLE: NOT_READY},
)
def ready(store: TheStore, settings: TheSettings, response: Response) -> Readiness:
    """Whether jobs will be run: the database is upgraded and a worker is alive."""
    found = readiness(store, settings)
    if not found.ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return found


@router.get("/metrics", operation_id="metrics", response_class=Response, responses={200: METRICS})
def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    text = generate_latest(request.app.state.observations.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
