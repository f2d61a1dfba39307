"""Python client of the HTTP service: typed values in and out, typed errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel

from nas.atomic import replacing
from nas.catalogue.tasks import DataKind
from nas.reports import TrustReport
from nas.schemas import (
    Dataset,
    DatasetPage,
    Event,
    Export,
    Front,
    Job,
    JobPage,
    JobRequest,
    ProfileResponse,
    TaskFront,
    Trial,
    TrialDetail,
    TrialPage,
)
from nas.states import ExportState, JobState
from nas.transport import Connection, ServiceError, ServiceUnreachable
from search_spaces.architecture import Architecture

__all__ = ["Client", "ServiceError", "ServiceUnreachable"]

JobDocument: TypeAlias = JobRequest | Mapping[str, Any] | Path
Bounds: TypeAlias = Mapping[str, float]

CHUNK_BYTES = 1 << 20
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
SILENCE_SECONDS = 45.0
"""The service says something at least every 15 s on an event stream; after this it is lost."""


class Client(Connection):
    """The service's operations; see ``nas.transport.Connection`` for how it is reached.

    Every method raises ServiceError when the service refuses and ServiceUnreachable when it does
    not answer.
    """

    # jobs

    def submit(self, job: JobDocument, *, idempotency_key: str | None = None) -> Job:
        """Submit a job: a request, its dict, or the path of a JSON or YAML file, sent as it is."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        if isinstance(job, Path):
            kind = "application/json" if job.suffix.lower() == ".json" else "application/yaml"
            content = job.read_bytes()
        else:
            kind, content = "application/json", _json(job)
        headers["Content-Type"] = kind
        return self._value(Job, "POST", "/v1/jobs", content=content, headers=headers)

    def jobs(self, *, state: JobState | str | None = None) -> Iterator[Job]:
        """All jobs, newest first, in one state or in any."""
        return self._pages(JobPage, "/v1/jobs", {"state": state})

    def job(self, job_id: str) -> Job:
        """One job as it stands."""
        return self._value(Job, "GET", f"/v1/jobs/{_part(job_id)}")

    def cancel(self, job_id: str) -> Job:
        """Stop a job for good; what it found stays."""
        return self._value(Job, "POST", f"/v1/jobs/{_part(job_id)}/cancel")

    def pause(self, job_id: str) -> Job:
        """Let a job stand still until it is resumed."""
        return self._value(Job, "POST", f"/v1/jobs/{_part(job_id)}/pause")

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        return self._value(Job, "POST", f"/v1/jobs/{_part(job_id)}/resume")

    def delete(self, job_id: str) -> None:
        """Remove a job that has ended, with its trials and exports."""
        self._send("DELETE", f"/v1/jobs/{_part(job_id)}")

    def wait(self, job_id: str) -> Job:
        """The job once it has ended, however it ended."""
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    # events

    def events(self, job_id: str, after: int = 0, *, patience: float = 60.0) -> Iterator[Event]:
        """The job's events with ``seq`` > ``after``, live, until the job's end; none is lost.

        patience: for how many seconds a lost service is tried again before ServiceUnreachable.
        """
        pause, reached = FIRST_PAUSE_SECONDS, time.monotonic()
        ended = False
        while True:
            try:
                for event in self._stream(job_id, after):
                    after, ended = event.seq, ended or event.last
                    pause, reached = FIRST_PAUSE_SECONDS, time.monotonic()
                    yield event
                if ended:
                    return
                # a stream also closes when the service stops; if the job has ended, whatever there
                # still is of it comes with one more connection
                ended = self.job(job_id).state.final
                reached = time.monotonic()
            except (ServiceUnreachable, ServiceError) as error:
                if not _passing(error) or time.monotonic() - reached > patience:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _stream(self, job_id: str, after: int) -> Iterator[Event]:
        """One connection's events, until the stream ends.

        Raises:
            ServiceUnreachable: it broke off.
        """
        request = self._http.build_request(
            "GET",
            f"/v1/jobs/{_part(job_id)}/events",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)},
            timeout=httpx.Timeout(self._timeout, read=SILENCE_SECONDS),
        )
        with self._reached():
            response = self._http.send(request, stream=True)
            try:
                self._checked(response)
                for message in EventSource(response).iter_sse():
                    if message.data:
                        yield Event.model_validate_json(message.data)
            finally:
                response.close()

    # trials and fronts

    def trials(
        self,
        job_id: str,
        *,
        state: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Trial]:
        """A job's trials, fetched in pages of ``limit``."""
        query = {"state": state, "sort": sort, "limit": limit}
        return self._pages(TrialPage, f"/v1/jobs/{_part(job_id)}/trials", query)

    def trial(self, trial_id: str) -> TrialDetail:
        """One trial with its learning curve."""
        return self._value(TrialDetail, "GET", f"/v1/trials/{_part(trial_id)}")

    def pareto(
        self,
        job_id: str,
        objectives: Sequence[str] | None = None,
        max: Bounds | None = None,  # noqa: A002 - the word of the service
        min: Bounds | None = None,  # noqa: A002
        fidelity: str | None = None,
        verified: bool | None = None,
    ) -> Front:
        """The Pareto front, within bounds on metrics: ``max={"latency_ms": 5}``."""
        query = _front_query(objectives, max, min, fidelity, verified)
        return self._value(Front, "GET", f"/v1/jobs/{_part(job_id)}/pareto", params=query)

    def task_pareto(
        self,
        task: str | None = None,
        job: str | None = None,
        objectives: Sequence[str] | None = None,
        max: Bounds | None = None,  # noqa: A002 - the word of the service
        min: Bounds | None = None,  # noqa: A002
        fidelity: str | None = None,
        verified: bool | None = None,
    ) -> TaskFront:
        """The front across jobs of one task: that of a name's newest job, or of a job's."""
        query = {"task": task, "job": job}
        query |= _front_query(objectives, max, min, fidelity, verified)
        return self._value(TaskFront, "GET", "/v1/pareto", params=query)

    def report(self, job_id: str) -> TrustReport:
        """What the job's numbers are worth, with warnings in words."""
        return self._value(TrustReport, "GET", f"/v1/jobs/{_part(job_id)}/report")

    # exports

    def export(self, job_id: str, trial: str = "knee", format: str = "config") -> Export:  # noqa: A002
        """Ask for a bundle of a trial: by id, ``knee`` or ``best:<metric>``."""
        request = {"trial": trial, "format": format}
        return self._value(Export, "POST", f"/v1/jobs/{_part(job_id)}/exports", **_body(request))

    def export_state(self, export_id: str) -> Export:
        """An export as it stands."""
        return self._value(Export, "GET", f"/v1/exports/{_part(export_id)}")

    def wait_export(self, export_id: str, *, poll_seconds: float = 0.5) -> Export:
        """The export once it is ready or has failed."""
        while True:
            export = self.export_state(export_id)
            if export.state in (ExportState.SUCCEEDED, ExportState.FAILED):
                return export
            time.sleep(poll_seconds)

    def download_export(self, export_id: str, path: Path) -> Path:
        """Save a ready export to a file, or into a folder under the service's name for it."""
        with self._reached():
            url = f"/v1/exports/{_part(export_id)}/download"
            with self._http.stream("GET", url) as response:
                self._checked(response)
                if path.is_dir():
                    path = path / _filename(response, export_id)
                with replacing(path) as partial, partial.open("wb") as file:
                    for chunk in response.iter_bytes(CHUNK_BYTES):
                        file.write(chunk)
        return path

    # data sets

    def add_dataset(self, name: str, path: Path, kind: DataKind = "text") -> Dataset:
        """Upload a file under a name, as a stream.

        kind: ``labelled`` for JSON lines, CSV or Parquet with the columns text and label.
        """
        with path.open("rb") as file:
            return self._value(
                Dataset,
                "POST",
                "/v1/datasets",
                params={"name": name, "kind": kind},
                content=iter(lambda: file.read(CHUNK_BYTES), b""),
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(path.stat().st_size),
                },
            )

    def datasets(self) -> Iterator[Dataset]:
        """The uploaded data sets, by name."""
        return self._pages(DatasetPage, "/v1/datasets", {})

    def delete_dataset(self, name: str) -> None:
        """Remove a data set that no unfinished job needs."""
        self._send("DELETE", f"/v1/datasets/{_part(name)}")

    # catalogue

    def profile(
        self, architectures: Sequence[Architecture | Mapping[str, Any]], **shape: Any
    ) -> list[dict[str, float]]:
        """Costs of architectures without training; ``shape`` as in ProfileRequest."""
        given = [
            a.model_dump(mode="json") if isinstance(a, Architecture) else dict(a)
            for a in architectures
        ]
        request = _body({"architectures": given, **shape})
        return self._value(ProfileResponse, "POST", "/v1/architectures/profile", **request).items

    def spaces(self) -> list[dict[str, Any]]:
        """The search spaces on offer."""
        return self._items("/v1/spaces")

    def space(self, name: str) -> dict[str, Any]:
        """One search space with its definition and domains."""
        return self._object("GET", f"/v1/spaces/{_part(name)}")

    def validate_space(self, definition: Mapping[str, Any]) -> dict[str, Any]:
        """What the service makes of a definition: its size."""
        return self._object("POST", "/v1/spaces/validate", **_body(definition))

    def mechanisms(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The mechanisms on offer, of one kind or all."""
        return self._items("/v1/mechanisms", {"kind": kind})

    def tasks(self) -> list[dict[str, Any]]:
        """The tasks on offer."""
        return self._items("/v1/tasks")

    def strategies(self) -> list[dict[str, Any]]:
        """The search strategies on offer."""
        return self._items("/v1/strategies")

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics: units, directions, when they are known."""
        return self._items("/v1/metrics")


def _passing(error: ServiceUnreachable | ServiceError) -> bool:
    """Whether the same may succeed a little later."""
    return isinstance(error, ServiceUnreachable) or error.problem.status == 503


def _json(value: JobRequest | Mapping[str, Any]) -> bytes:
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    return json.dumps(value, allow_nan=False).encode()


def _body(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": _json(value), "headers": {"Content-Type": "application/json"}}


def _front_query(
    objectives: Sequence[str] | None,
    most: Bounds | None,
    least: Bounds | None,
    fidelity: str | None,
    verified: bool | None,
) -> dict[str, Any]:
    return {
        "objectives": ",".join(objectives) if objectives else None,
        "fidelity": fidelity,
        "verified": verified,
        **{f"max.{metric}": bound for metric, bound in (most or {}).items()},
        **{f"min.{metric}": bound for metric, bound in (least or {}).items()},
    }


def _part(name: str) -> str:
    """A name as one part of a path, whatever is in it."""
    return quote(name, safe="")


def _filename(response: httpx.Response, export_id: str) -> str:
    """The name that the service gives, without any folder in it."""
    _, _, given = response.headers.get("content-disposition", "").partition('filename="')
    name = Path(given.partition('"')[0]).name
    return name or f"{export_id}.bin"
