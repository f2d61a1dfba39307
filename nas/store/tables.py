"""The tables, as SQLAlchemy sees them. ``migrations/`` brings a database to this shape."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from nas.catalogue.metrics import METRICS
from nas.states import ExportState, JobState, TrialState

ID = String(40)
NAME = String(128)
KEY = String(64)
STATE_LENGTH = 16


class UtcDateTime(TypeDecorator[datetime]):
    """Aware times, stored in UTC; SQLite, which keeps no zone, gives them back in UTC too."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: nobody knows what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Message(TypeDecorator[str]):
    """A text for people. PostgreSQL holds no NUL, which a message may bring along."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Without NULs."""
        return None if value is None else value.replace("\0", "")


def state_type(states: type[StrEnum], name: str) -> Enum:
    """A column of these states, as strings, which the database checks."""
    return Enum(
        states,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=STATE_LENGTH,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """Base of the tables; constraints have names that a migration can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        datetime: UtcDateTime(),
        float: Double(),
        dict[str, Any]: JSON(),
    }


class RungMetrics:
    """One column for each metric that is measured at a rung."""

    loss: Mapped[float | None]
    accuracy: Mapped[float | None]
    expected_depth: Mapped[float | None]
    expected_flops: Mapped[float | None]
    effective_context: Mapped[float | None]


class Metrics(RungMetrics):
    """One column for each metric of the catalogue."""

    parameters: Mapped[float | None]
    non_embedding_parameters: Mapped[float | None]
    active_parameters: Mapped[float | None]
    unshared_parameters: Mapped[float | None]
    flops: Mapped[float | None]
    flops_low: Mapped[float | None]
    training_flops: Mapped[float | None]
    peak_memory_mb: Mapped[float | None]
    training_memory_mb: Mapped[float | None]
    decoding_memory_mb: Mapped[float | None]
    latency_ms: Mapped[float | None]
    step_latency_ms: Mapped[float | None]
    throughput: Mapped[float | None]
    energy_j: Mapped[float | None]


class JobRow(Base):
    """A search job, its lease, its bill."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("project", "idempotency_key"),
        Index(None, "state", "created_at", "id"),  # to claim
        Index(None, "dataset"),
        Index(None, "task_key"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project: Mapped[str] = mapped_column(NAME)
    name: Mapped[str] = mapped_column(NAME)
    state: Mapped[JobState] = mapped_column(state_type(JobState, "state"))
    phase: Mapped[str] = mapped_column(KEY)
    error: Mapped[str | None] = mapped_column(Message)
    idempotency_key: Mapped[str | None] = mapped_column(KEY)
    """SHA-256 of the key that the client gave."""
    request_hash: Mapped[str] = mapped_column(KEY)
    space: Mapped[str] = mapped_column(NAME)
    task: Mapped[str] = mapped_column(KEY)
    dataset: Mapped[str | None] = mapped_column(NAME)
    """An uploaded data set that the job needs, by name."""
    max_steps: Mapped[int]
    task_key: Mapped[str | None] = mapped_column(KEY)
    result_key: Mapped[str | None] = mapped_column(KEY)
    data_hash: Mapped[str | None] = mapped_column(KEY)
    trivial_loss: Mapped[float | None]
    device: Mapped[str | None] = mapped_column(String(255))
    """The hardware that its latencies are of."""
    worker: Mapped[str | None] = mapped_column(NAME)
    token: Mapped[int] = mapped_column(default=0)
    lease_expires: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    pid: Mapped[int | None]
    process_started: Mapped[float | None]
    search_core_seconds: Mapped[float] = mapped_column(default=0.0)
    verification_core_seconds: Mapped[float] = mapped_column(default=0.0)
    search_metered_core_seconds: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """Those of them whose energy counters have measured, which is next."""
    search_metered_kwh: Mapped[float] = mapped_column(default=0.0, server_default="0")
    verification_metered_core_seconds: Mapped[float] = mapped_column(
        default=0.0, server_default="0"
    )
    verification_metered_kwh: Mapped[float] = mapped_column(default=0.0, server_default="0")
    co2_kg_per_kwh: Mapped[float | None]
    """Of the electricity where it ran, where a worker was told."""
    ended_by: Mapped[str | None] = mapped_column(KEY)
    """What ended the asking for new trials: a bound of the budget, or the space."""
    elapsed_seconds: Mapped[float] = mapped_column(default=0.0)
    running_since: Mapped[datetime | None]
    next_seq: Mapped[int] = mapped_column(default=1)
    next_number: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # documents last, and loaded only when asked for: most queries have no use for them
    request: Mapped[dict[str, Any]] = mapped_column(deferred=True, deferred_group="documents")
    space_definition: Mapped[dict[str, Any]] = mapped_column(
        deferred=True, deferred_group="documents"
    )
    scales: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True), deferred=True, deferred_group="documents"
    )


class TrialRow(Metrics, Base):
    """One architecture in one job, with the numbers of its last finished rung."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        UniqueConstraint("job_id", "fingerprint"),
        Index(None, "job_id", "state", "rung"),
        Index(None, "job_id", "seq"),  # to find what has changed
        Index(None, "result_key", "fingerprint"),  # to find what is known already
        *(Index(None, "job_id", metric, "id") for metric in METRICS),  # to sort by any metric
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    seq: Mapped[int] = mapped_column(default=0)
    """The number of its latest event."""
    fingerprint: Mapped[str] = mapped_column(KEY)
    homogeneous: Mapped[bool]
    origin: Mapped[str] = mapped_column(KEY)
    seed: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[TrialState] = mapped_column(state_type(TrialState, "state"))
    error: Mapped[str | None] = mapped_column(Message)
    rung: Mapped[int | None]
    active_rung: Mapped[int | None]
    steps: Mapped[int] = mapped_column(default=0)
    fidelity: Mapped[float] = mapped_column(default=0.0)
    training_seconds: Mapped[float] = mapped_column(default=0.0)
    evaluation_seconds: Mapped[float] = mapped_column(default=0.0)
    reused_from: Mapped[str | None] = mapped_column(ID)
    """A trial of another job, which may be gone by now: no foreign key."""
    parent: Mapped[str | None] = mapped_column(ID)
    """The trial whose weights it started from."""
    result_key: Mapped[str | None] = mapped_column(KEY)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ArchitectureRow(Base):
    """A trial's architecture, apart from its numbers so that those are read fast in bulk."""

    __tablename__ = "architectures"

    trial_id: Mapped[str] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    document: Mapped[dict[str, Any]]


class RungRow(RungMetrics, Base):
    """A point of a learning curve: what a trial measured at one rung."""

    __tablename__ = "rungs"

    trial_id: Mapped[str] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    rung: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    steps: Mapped[int]
    training_seconds: Mapped[float]
    evaluation_seconds: Mapped[float]
    finished_at: Mapped[datetime]


class VerificationRow(Metrics, Base):
    """A trial trained again with a fresh seed."""

    __tablename__ = "verifications"

    trial_id: Mapped[str] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    finished_at: Mapped[datetime]
    test: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Metrics on the test split, which nothing is ever chosen by."""


class TransferRow(Base):
    """A verified trial trained on another task: which of ``verification.also``, from 0."""

    __tablename__ = "transfers"

    trial_id: Mapped[str] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    task: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    metrics: Mapped[dict[str, Any]]
    finished_at: Mapped[datetime]


class LatencyRoundsRow(Base):
    """What a verified trial took in each round, round by round beside all others verified."""

    __tablename__ = "latency_rounds"

    trial_id: Mapped[str] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    milliseconds: Mapped[list[float]] = mapped_column(JSON)
    alone: Mapped[bool]
    """Whether nothing else ran on the machine meanwhile."""
    finished_at: Mapped[datetime]


class MeasurementRow(Base):
    """A cost of a trial that was predicted before training, measured at the end."""

    __tablename__ = "measurements"

    trial_id: Mapped[str] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    metric: Mapped[str] = mapped_column(KEY, primary_key=True)
    predicted: Mapped[float | None]
    measured: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    alone: Mapped[bool]
    """Whether nothing else ran on the machine meanwhile."""
    finished_at: Mapped[datetime]


class EventRow(Base):
    """Something that happened in a job."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(KEY)
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class ExportRow(Base):
    """A requested export and its lease."""

    __tablename__ = "exports"
    __table_args__ = (
        Index(
            "uq_exports_trial_id_format",
            "trial_id",
            "format",
            unique=True,
            # one that failed may be asked for again
            sqlite_where=text("state != 'failed'"),
            postgresql_where=text("state != 'failed'"),
        ),
        Index(None, "state", "created_at", "id"),  # to claim
        Index(None, "job_id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    format: Mapped[str] = mapped_column(KEY)
    state: Mapped[ExportState] = mapped_column(state_type(ExportState, "state"))
    error: Mapped[str | None] = mapped_column(Message)
    filename: Mapped[str | None] = mapped_column(String(255))
    worker: Mapped[str | None] = mapped_column(NAME)
    token: Mapped[int] = mapped_column(default=0)
    lease_expires: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class DatasetRow(Base):
    """Uploaded data: a name for a file that is found by its SHA-256."""

    __tablename__ = "datasets"
    __table_args__ = (Index(None, "sha256"),)

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    kind: Mapped[str] = mapped_column(KEY)
    sha256: Mapped[str] = mapped_column(KEY)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class LatencyTableRow(Base):
    """What a device takes for each block."""

    __tablename__ = "latency_tables"

    device: Mapped[str] = mapped_column(String(255), primary_key=True)
    table: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class WorkerRow(Base):
    """A worker process."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(NAME, primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started: Mapped[float]
    heartbeat: Mapped[datetime]
