"""Why a job's search came to an end, and whose weights a trial started from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns; nothing that is there changes."""
    op.add_column("jobs", sa.Column("ended_by", sa.String(64)))
    op.add_column("trials", sa.Column("parent", sa.String(40)))


def downgrade() -> None:
    """Drop them again."""
    op.drop_column("trials", "parent")
    op.drop_column("jobs", "ended_by")
