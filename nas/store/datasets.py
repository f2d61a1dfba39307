"""Uploaded data sets, by name."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from nas.errors import Conflict, NotFound
from nas.store import clock
from nas.store.jobs import unfinished_with_dataset
from nas.store.records import DatasetRecord
from nas.store.tables import DatasetRow


def add(
    session: Session, *, name: str, kind: str, sha256: str, size: int
) -> tuple[DatasetRecord, bool]:
    """A data set of this content, new, or the one that is there (False).

    Raises:
        Conflict: the name stands for other content, or for another kind of it.
    """
    _lock(session)
    row = session.get(DatasetRow, name)
    if row is not None:
        if (row.sha256, row.kind) != (sha256, kind):
            other = "content" if row.sha256 != sha256 else "kind"
            raise Conflict(f"data set {name} is there with another {other}: delete it first")
        return _to_record(row), False
    row = DatasetRow(name=name, kind=kind, sha256=sha256, bytes=size, created_at=clock.now(session))
    session.add(row)
    session.flush()
    return _to_record(row), True


def get(session: Session, name: str) -> DatasetRecord:
    """The data set.

    Raises:
        NotFound
    """
    row = session.get(DatasetRow, name)
    if row is None:
        raise NotFound(f"there is no data set {name}")
    return _to_record(row)


def hold(session: Session, name: str) -> DatasetRecord:
    """The data set, which cannot be deleted before the transaction ends.

    Raises:
        NotFound
    """
    row = session.scalar(
        select(DatasetRow).where(DatasetRow.name == name).with_for_update(read=True)
    )
    if row is None:
        raise NotFound(f"there is no data set {name}")
    return _to_record(row)


def page(session: Session, *, after: str = "", limit: int | None = None) -> list[DatasetRecord]:
    """Data sets by name; ``after``: only those whose name follows this one."""
    query = select(DatasetRow).where(DatasetRow.name > after).order_by(DatasetRow.name)
    return [_to_record(row) for row in session.scalars(query.limit(limit))]


def delete(session: Session, name: str) -> str | None:
    """Remove a data set; returns its SHA-256 when no other name stands for the same content.

    Raises:
        NotFound, Conflict: a job that has not ended needs it.
    """
    _lock(session)
    row = session.scalar(select(DatasetRow).where(DatasetRow.name == name).with_for_update())
    if row is None:
        raise NotFound(f"there is no data set {name}")
    if users := unfinished_with_dataset(session, name):
        raise Conflict(f"data set {name} is in use by {', '.join(users)}")
    session.delete(row)
    session.flush()
    shared = session.scalar(select(DatasetRow.name).where(DatasetRow.sha256 == row.sha256).limit(1))
    return None if shared else row.sha256


def _lock(session: Session) -> None:
    # names share files: whoever adds or deletes one must see all others as they are
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE datasets IN SHARE ROW EXCLUSIVE MODE"))


def _to_record(row: DatasetRow) -> DatasetRecord:
    return DatasetRecord(row.name, row.kind, row.sha256, row.bytes, row.created_at)
