"""Search jobs: submit, look, stop, go on, remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response, status

from api.dependencies import UseCases
from api.documents import DocumentRoute
from api.openapi import problems
from nas.schemas import Job, JobPage, JobRequest, Name
from nas.states import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=DocumentRoute)


@router.post(
    "",
    operation_id="submit_job",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(400, 409, 413, 415),
    response_description="Accepted; `Location` is where the job is found.",
)
def submit(
    request: JobRequest,
    jobs: UseCases,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="The same key with the same request gives the same job, not another.",
        ),
    ] = None,
) -> Job:
    """Submit a search job. Only `task` is required; an unknown key is an error."""
    job, _ = jobs.submit(request, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get("", operation_id="list_jobs")
def page(
    jobs: UseCases,
    state: JobState | None = None,
    project: Name | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> JobPage:
    """Jobs, newest first."""
    return jobs.list(state=state, project=project, cursor=cursor, limit=limit)


@router.get("/{job_id}", operation_id="get_job", responses=problems(404))
def get(job_id: str, jobs: UseCases) -> Job:
    """A job: its state, progress, bill, and why it failed if it did."""
    return jobs.get(job_id)


@router.post("/{job_id}/cancel", operation_id="cancel_job", responses=problems(404, 409))
def cancel(job_id: str, jobs: UseCases) -> Job:
    """Stop a job for good; what it found stays. Idempotent."""
    return jobs.cancel(job_id)


@router.post("/{job_id}/pause", operation_id="pause_job", responses=problems(404, 409))
def pause(job_id: str, jobs: UseCases) -> Job:
    """Let a job stand still until it is resumed. Idempotent."""
    return jobs.pause(job_id)


@router.post("/{job_id}/resume", operation_id="resume_job", responses=problems(404, 409))
def resume(job_id: str, jobs: UseCases) -> Job:
    """Let a paused job go on where it stopped. Idempotent."""
    return jobs.resume(job_id)


@router.delete(
    "/{job_id}",
    operation_id="delete_job",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=problems(404, 409),
)
def delete(job_id: str, jobs: UseCases) -> None:
    """Remove a job that has ended, with its trials and exports."""
    jobs.delete(job_id)
