"""Exports: bundles for training, made by a worker."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response, status
from fastapi.responses import FileResponse

from api.dependencies import UseCases
from api.documents import DocumentRoute
from api.openapi import problems
from nas.schemas import Export, ExportRequest

FILE = {
    "description": "The bundle.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
KNEE = ExportRequest()

router = APIRouter(prefix="/v1", tags=["exports"], route_class=DocumentRoute)


@router.post(
    "/jobs/{job_id}/exports",
    operation_id="request_export",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(400, 404, 409, 413, 415),
    response_description="Accepted; `Location` is where the export is found.",
)
def request_export(
    job_id: str,
    jobs: UseCases,
    response: Response,
    request: Annotated[ExportRequest, Body()] = KNEE,
) -> Export:
    """Ask for a trial's bundle; asked for again, the one that is there is given."""
    export, _ = jobs.request_export(job_id, request)
    response.headers["Location"] = f"/v1/exports/{export.id}"
    return export


@router.get("/exports/{export_id}", operation_id="get_export", responses=problems(404))
def get(export_id: str, jobs: UseCases) -> Export:
    """An export as it stands."""
    return jobs.export(export_id)


@router.get(
    "/exports/{export_id}/download",
    operation_id="download_export",
    response_class=FileResponse,
    responses={200: FILE, **problems(404, 409)},
)
def download(export_id: str, jobs: UseCases) -> FileResponse:
    """The bundle, once the export has succeeded."""
    path = jobs.export_path(export_id)
    return FileResponse(path, filename=path.name)
