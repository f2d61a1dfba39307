"""What the store hands out: frozen values, never rows of a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nas.billing import Work
from nas.spread import Estimate
from nas.states import ExportState, JobState, TrialState


@dataclass(frozen=True)
class JobRecord:
    """A job row. ``request`` and ``space_definition`` are the stored documents, defaults included.

    token: the fencing token of the latest lease.  attempts: claims that did not end in a release.
    elapsed_seconds: running time up to ``running_since`` (None while it stands still).
    …_metered_core_seconds: those whose energy counters have measured, in …_metered_kwh.
    ended_by: the bound of the budget, or the space, for which no new trial is asked any more.
    task_key, result_key, data_hash, trivial_loss, device, scales: None until a worker has begun it.
    """

    id: str
    project: str
    name: str
    state: JobState
    phase: str
    error: str | None
    request: dict[str, Any]
    space: str
    space_definition: dict[str, Any]
    task: str
    dataset: str | None
    max_steps: int
    task_key: str | None
    result_key: str | None
    data_hash: str | None
    trivial_loss: float | None
    device: str | None
    scales: dict[str, dict[str, Any]] | None
    worker: str | None
    token: int
    lease_expires: datetime | None
    attempts: int
    pid: int | None
    process_started: float | None
    search_core_seconds: float
    verification_core_seconds: float
    search_metered_core_seconds: float
    search_metered_kwh: float
    verification_metered_core_seconds: float
    verification_metered_kwh: float
    co2_kg_per_kwh: float | None
    ended_by: str | None
    elapsed_seconds: float
    running_since: datetime | None
    last_seq: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def searched(self) -> Work:
        """The work of its search."""
        return Work(
            self.search_core_seconds, self.search_metered_core_seconds, self.search_metered_kwh
        )

    @property
    def verified(self) -> Work:
        """The work of its verification."""
        return Work(
            self.verification_core_seconds,
            self.verification_metered_core_seconds,
            self.verification_metered_kwh,
        )


@dataclass(frozen=True)
class CurveRecord:
    """A trial at one rung; times in seconds."""

    rung: int
    steps: int
    metrics: dict[str, float]
    training_seconds: float
    evaluation_seconds: float
    finished_at: datetime


@dataclass(frozen=True)
class VerificationRecord:
    """A trial trained again with a fresh seed; ``test`` holds metrics on the test split."""

    seed: int
    metrics: dict[str, float]
    test: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TransferRecord:
    """A verified trial trained on another task, the nth of the job's ``verification.also``."""

    trial_id: str
    task: int
    seed: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrialRecord:
    """A trial row; ``metrics`` are those of the last finished rung and the costs known before.

    rung: the last one finished.  active_rung: the one in training, or that was in training when
    the trial was interrupted.
    parent: the trial whose weights it started from.
    curve is empty unless it was asked for.
    verified, tested: by metric, over fresh seeds, on the validation and on the test split; their
    intervals are of the spread of all that the job has verified.
    """

    id: str
    job_id: str
    number: int
    architecture: dict[str, Any]
    fingerprint: str
    homogeneous: bool
    origin: str
    seed: int
    state: TrialState
    error: str | None
    rung: int | None
    active_rung: int | None
    steps: int
    fidelity: float
    metrics: dict[str, float]
    training_seconds: float
    evaluation_seconds: float
    reused_from: str | None
    parent: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    curve: tuple[CurveRecord, ...] = ()
    verifications: tuple[VerificationRecord, ...] = ()
    verified: dict[str, Estimate] = field(default_factory=dict)
    tested: dict[str, Estimate] = field(default_factory=dict)

    @property
    def attention(self) -> list[str]:
        """Its kinds of attention, sorted."""
        return sorted({layer["attention"]["type"] for layer in self.architecture["layers"]})


@dataclass(frozen=True)
class EventRecord:
    """Something that happened in a job; ``seq`` counts from 1 without gaps."""

    job_id: str
    seq: int
    type: str
    at: datetime
    data: dict[str, Any]


@dataclass(frozen=True)
class ExportRecord:
    """A requested export and its lease. ``filename`` lies in the exports folder once finished."""

    id: str
    job_id: str
    trial_id: str
    format: str
    state: ExportState
    error: str | None
    filename: str | None
    worker: str | None
    token: int
    attempts: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class DatasetRecord:
    """Uploaded data; the file is named by its SHA-256 in the data sets' folder."""

    name: str
    kind: str
    sha256: str
    bytes: int
    created_at: datetime


@dataclass(frozen=True)
class WorkerRecord:
    """A worker process; ``started`` is its start time as the operating system tells it."""

    id: str
    host: str
    pid: int
    started: float
    heartbeat: datetime


@dataclass(frozen=True)
class DeletedJob:
    """A job that is gone, and the files that it leaves behind."""

    id: str
    trial_ids: tuple[str, ...]
    export_filenames: tuple[str, ...]
