"""More metrics, and what was predicted beside what was measured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String(40)
KEY = sa.String(64)
TIME = sa.DateTime(timezone=True)

RUNG_METRICS = ("expected_flops", "effective_context")
METRICS = (
    *RUNG_METRICS,
    "active_parameters",
    "unshared_parameters",
    "training_flops",
    "decoding_memory_mb",
    "step_latency_ms",
    "throughput",
    "energy_j",
)

METERED = (
    "search_metered_core_seconds",
    "search_metered_kwh",
    "verification_metered_core_seconds",
    "verification_metered_kwh",
)


def upgrade() -> None:
    """Add columns, indexes and tables; nothing that is there changes."""
    for table, metrics in _metric_tables():
        for metric in metrics:
            op.add_column(table, sa.Column(metric, sa.Double()))
    for metric in METRICS:
        op.create_index(f"ix_trials_job_id_{metric}_id", "trials", ["job_id", metric, "id"])
    op.add_column("jobs", sa.Column("device", sa.String(255)))
    for metered in METERED:
        op.add_column("jobs", sa.Column(metered, sa.Double(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("co2_kg_per_kwh", sa.Double()))
    op.add_column("verifications", sa.Column("test", sa.JSON()))
    _measurements()
    _transfers()
    _latency_rounds()


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("latency_rounds")
    op.drop_table("transfers")
    op.drop_table("measurements")
    op.drop_column("verifications", "test")
    for column in ("device", *METERED, "co2_kg_per_kwh"):
        op.drop_column("jobs", column)
    for metric in METRICS:
        op.drop_index(f"ix_trials_job_id_{metric}_id", "trials")
    for table, metrics in _metric_tables():
        for metric in metrics:
            op.drop_column(table, metric)


def _metric_tables() -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("trials", METRICS), ("rungs", RUNG_METRICS), ("verifications", METRICS)


def _measurements() -> None:
    op.create_table(
        "measurements",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("metric", KEY, nullable=False),
        sa.Column("predicted", sa.Double()),
        sa.Column("measured", sa.Double(), nullable=False),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"],
            ["trials.id"],
            name="fk_measurements_trial_id_trials",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", "metric", name="pk_measurements"),
    )


def _transfers() -> None:
    op.create_table(
        "transfers",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("task", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name="fk_transfers_trial_id_trials", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "task", "seed", name="pk_transfers"),
    )


def _latency_rounds() -> None:
    op.create_table(
        "latency_rounds",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("milliseconds", sa.JSON(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"],
            ["trials.id"],
            name="fk_latency_rounds_trial_id_trials",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", name="pk_latency_rounds"),
    )
