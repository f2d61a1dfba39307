"""One row for each key, written whole by whoever comes last."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nas.store.tables import Base


def put(session: Session, row: type[Base], key: str, values: dict[str, Any]) -> None:
    """Insert a row, or replace the values of the one that has the same key."""
    on_postgresql = session.get_bind().dialect.name == "postgresql"
    statement = (postgresql.insert if on_postgresql else sqlite.insert)(row).values(values)
    changed = {name: value for name, value in values.items() if name != key}
    session.execute(statement.on_conflict_do_update(index_elements=[key], set_=changed))
