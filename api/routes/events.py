"""A job's events as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.dependencies import TheTailer, UseCases
from api.openapi import problems
from nas.schemas import Event

HEARTBEAT_SECONDS = 15
LINE_END = "\n"
STREAM = {
    "description": "Server-sent events: `id` is the seq, `event` the type, `data` the event as "
    "JSON. The stream ends after the job's last event.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])


@router.get(
    "",
    operation_id="follow_job",
    response_class=Response,
    responses={200: STREAM, **problems(404)},
)
async def follow(
    job_id: str,
    jobs: UseCases,
    tailer: TheTailer,
    after: Annotated[int, Query(ge=0, description="Only what follows this seq.")] = 0,
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID",
            ge=0,
            description="The same, set by clients that connect again; it counts before `after`.",
        ),
    ] = None,
) -> Response:
    """What happened and what happens, from any point on, without gaps."""
    job = await run_in_threadpool(jobs.get, job_id)
    start = after if last_event_id is None else last_event_id
    events = tailer.follow(job_id, start, ended=job.state.final)
    return EventSourceResponse(_messages(events), ping=HEARTBEAT_SECONDS, sep=LINE_END)


async def _messages(events: AsyncIterator[Event]) -> AsyncIterator[ServerSentEvent]:
    async for event in events:
        yield ServerSentEvent(
            data=event.model_dump_json(), id=str(event.seq), event=event.type, sep=LINE_END
        )
