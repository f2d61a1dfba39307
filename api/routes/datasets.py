"""A user's own data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import anyio.from_thread
from fastapi import APIRouter, Query, Request, Response, status
from starlette.concurrency import run_in_threadpool

from api.dependencies import TheSettings, UseCases
from api.errors import DocumentTooLarge
from api.openapi import problems
from nas.catalogue.tasks import DataKind
from nas.schemas import Dataset, DatasetPage

UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
DatasetName = Annotated[str, Query(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    operation_id="add_dataset",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=UPLOAD,
    responses=problems(409, 413, 507),
)
async def add(
    request: Request,
    jobs: UseCases,
    settings: TheSettings,
    name: DatasetName,
    response: Response,
    kind: DataKind = "text",
) -> Dataset:
    """Upload data as the raw body; they are stored as they arrive.

    Of kind `text` any bytes; of kind `labelled` JSON lines, CSV or Parquet with the columns `text`
    and `label`.
    """
    chunks = _chunks(request.stream(), settings.max_upload_bytes)
    dataset, created = await run_in_threadpool(jobs.add_dataset, name, chunks, kind)
    if not created:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/datasets/{name}"
    return dataset


@router.get("", operation_id="list_datasets")
def page(
    jobs: UseCases,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DatasetPage:
    """The data sets, by name."""
    return jobs.datasets(cursor=cursor, limit=limit)


@router.delete(
    "/{name}",
    operation_id="delete_dataset",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=problems(404, 409),
)
def delete(name: str, jobs: UseCases) -> None:
    """Remove a data set that no unfinished job needs."""
    jobs.delete_dataset(name)


def _chunks(stream: AsyncIterator[bytes], limit: int) -> Iterator[bytes]:
    """The stream for a worker thread, which reads it chunk by chunk from the event loop.

    Raises:
        DocumentTooLarge: it has more than ``limit`` bytes.
    """

    async def following() -> bytes | None:
        return await anext(stream, None)

    size = 0
    while (chunk := anyio.from_thread.run(following)) is not None:
        size += len(chunk)
        if size > limit:
            raise DocumentTooLarge(f"a data set has at most {limit:,} bytes")
        yield chunk
