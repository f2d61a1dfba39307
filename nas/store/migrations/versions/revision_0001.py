"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(40)
NAME = sa.String(128)
KEY = sa.String(64)
STATE = sa.String(16)
TIME = sa.DateTime(timezone=True)

JOB_STATES = ("queued", "running", "paused", "cancelling", "cancelled", "succeeded", "failed")
TRIAL_STATES = ("waiting", "running", "paused", "stopped", "completed", "reused", "failed")
EXPORT_STATES = ("queued", "running", "succeeded", "failed")
RUNG_METRICS = ("loss", "accuracy", "expected_depth")
METRICS = (
    *RUNG_METRICS,
    "parameters",
    "non_embedding_parameters",
    "flops",
    "flops_low",
    "peak_memory_mb",
    "training_memory_mb",
    "latency_ms",
)


def upgrade() -> None:
    """Create every table and index."""
    _jobs()
    _trials()
    _results()
    _events()
    _exports()
    _datasets()
    _machines()


def downgrade() -> None:
    """Drop every table."""
    for table in (
        "workers",
        "latency_tables",
        "datasets",
        "exports",
        "events",
        "verifications",
        "rungs",
        "architectures",
        "trials",
        "jobs",
    ):
        op.drop_table(table)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ID, nullable=False),
        sa.Column("project", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("phase", KEY, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("idempotency_key", KEY),
        sa.Column("request_hash", KEY, nullable=False),
        sa.Column("space", NAME, nullable=False),
        sa.Column("task", KEY, nullable=False),
        sa.Column("dataset", NAME),
        sa.Column("max_steps", sa.Integer(), nullable=False),
        sa.Column("task_key", KEY),
        sa.Column("result_key", KEY),
        sa.Column("data_hash", KEY),
        sa.Column("trivial_loss", sa.Double()),
        sa.Column("worker", NAME),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("lease_expires", TIME),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("pid", sa.Integer()),
        sa.Column("process_started", sa.Double()),
        sa.Column("search_core_seconds", sa.Double(), nullable=False),
        sa.Column("verification_core_seconds", sa.Double(), nullable=False),
        sa.Column("elapsed_seconds", sa.Double(), nullable=False),
        sa.Column("running_since", TIME),
        sa.Column("next_seq", sa.Integer(), nullable=False),
        sa.Column("next_number", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("space_definition", sa.JSON(), nullable=False),
        sa.Column("scales", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("project", "idempotency_key", name="uq_jobs_project_idempotency_key"),
        _state_check("jobs", JOB_STATES),
    )
    op.create_index("ix_jobs_state_created_at_id", "jobs", ["state", "created_at", "id"])
    op.create_index("ix_jobs_dataset", "jobs", ["dataset"])
    op.create_index("ix_jobs_task_key", "jobs", ["task_key"])


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column("id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("fingerprint", KEY, nullable=False),
        sa.Column("homogeneous", sa.Boolean(), nullable=False),
        sa.Column("origin", KEY, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("rung", sa.Integer()),
        sa.Column("active_rung", sa.Integer()),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("fidelity", sa.Double(), nullable=False),
        sa.Column("training_seconds", sa.Double(), nullable=False),
        sa.Column("evaluation_seconds", sa.Double(), nullable=False),
        sa.Column("reused_from", ID),
        sa.Column("result_key", KEY),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        *_metrics(METRICS),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("job_id", "number", name="uq_trials_job_id_number"),
        sa.UniqueConstraint("job_id", "fingerprint", name="uq_trials_job_id_fingerprint"),
        _belongs_to("trials", "job_id", "jobs"),
        _state_check("trials", TRIAL_STATES),
    )
    op.create_index("ix_trials_job_id_state_rung", "trials", ["job_id", "state", "rung"])
    op.create_index("ix_trials_job_id_seq", "trials", ["job_id", "seq"])
    op.create_index("ix_trials_result_key_fingerprint", "trials", ["result_key", "fingerprint"])
    for metric in METRICS:
        op.create_index(f"ix_trials_job_id_{metric}_id", "trials", ["job_id", metric, "id"])


def _results() -> None:
    op.create_table(
        "architectures",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("trial_id", name="pk_architectures"),
        _belongs_to("architectures", "trial_id", "trials"),
    )
    op.create_table(
        "rungs",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("rung", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("training_seconds", sa.Double(), nullable=False),
        sa.Column("evaluation_seconds", sa.Double(), nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        *_metrics(RUNG_METRICS),
        sa.PrimaryKeyConstraint("trial_id", "rung", name="pk_rungs"),
        _belongs_to("rungs", "trial_id", "trials"),
    )
    op.create_table(
        "verifications",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("seed", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        *_metrics(METRICS),
        sa.PrimaryKeyConstraint("trial_id", "seed", name="pk_verifications"),
        _belongs_to("verifications", "trial_id", "trials"),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("type", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_events"),
        _belongs_to("events", "job_id", "jobs"),
    )


def _exports() -> None:
    op.create_table(
        "exports",
        sa.Column("id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("format", KEY, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("filename", sa.String(255)),
        sa.Column("worker", NAME),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("lease_expires", TIME),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_exports"),
        _belongs_to("exports", "job_id", "jobs"),
        _belongs_to("exports", "trial_id", "trials"),
        _state_check("exports", EXPORT_STATES),
    )
    op.create_index(
        "uq_exports_trial_id_format",
        "exports",
        ["trial_id", "format"],
        unique=True,
        sqlite_where=sa.text("state != 'failed'"),
        postgresql_where=sa.text("state != 'failed'"),
    )
    op.create_index("ix_exports_state_created_at_id", "exports", ["state", "created_at", "id"])
    op.create_index("ix_exports_job_id", "exports", ["job_id"])


def _datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("name", NAME, nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("sha256", KEY, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_datasets"),
    )
    op.create_index("ix_datasets_sha256", "datasets", ["sha256"])


def _machines() -> None:
    op.create_table(
        "latency_tables",
        sa.Column("device", sa.String(255), nullable=False),
        sa.Column("table", sa.JSON(), nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("device", name="pk_latency_tables"),
    )
    op.create_table(
        "workers",
        sa.Column("id", NAME, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("heartbeat", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )


def _metrics(names: tuple[str, ...]) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double()) for name in names]


def _belongs_to(table: str, column: str, owner: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{owner}.id"], name=f"fk_{table}_{column}", ondelete="CASCADE"
    )


def _state_check(table: str, states: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{state}'" for state in states)
    return sa.CheckConstraint(f"state IN ({listed})", name=op.f(f"ck_{table}_state"))
