"""Costs without training."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import UseCases
from api.documents import LargeDocumentRoute
from api.openapi import problems
from nas.schemas import ProfileRequest, ProfileResponse

router = APIRouter(prefix="/v1/architectures", tags=["catalogue"], route_class=LargeDocumentRoute)


@router.post("/profile", operation_id="profile_architectures", responses=problems(400, 413, 415))
def profile(request: ProfileRequest, jobs: UseCases) -> ProfileResponse:
    """Parameters, FLOPs, memory and, where a device table exists, latency of architectures."""
    return jobs.profile(request)
