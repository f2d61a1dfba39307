"""The trials of a job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import UseCases
from api.openapi import problems
from nas.schemas import TrialDetail, TrialPage
from nas.states import TrialState

router = APIRouter(prefix="/v1", tags=["trials"])


@router.get("/jobs/{job_id}/trials", operation_id="list_trials", responses=problems(404))
def page(
    job_id: str,
    jobs: UseCases,
    state: TrialState | None = None,
    sort: Annotated[
        str, Query(description="`number` or a metric; with `-` before it, descending.")
    ] = "number",
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> TrialPage:
    """A job's trials."""
    return jobs.trials(job_id, state=state, sort=sort, cursor=cursor, limit=limit)


@router.get("/trials/{trial_id}", operation_id="get_trial", responses=problems(404))
def get(trial_id: str, jobs: UseCases) -> TrialDetail:
    """A trial with its learning curve."""
    return jobs.trial(trial_id)
