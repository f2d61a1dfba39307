"""The pages for people: the dashboard and the documentation of the API."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

FOLDER = Path(__file__).parents[1] / "dashboard"

router = APIRouter(include_in_schema=False)


@router.get("/", response_class=FileResponse)
def dashboard() -> FileResponse:
    """The dashboard."""
    return FileResponse(FOLDER / "index.html", media_type="text/html; charset=utf-8")


@router.get("/docs", response_class=FileResponse)
def docs() -> FileResponse:
    """What ``/openapi.json`` says, for people."""
    return FileResponse(FOLDER / "docs.html", media_type="text/html; charset=utf-8")
