"""Pages of trials in any order, by keyset: each page is one or two walks along an index."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from nas.catalogue.metrics import METRICS
from nas.states import TrialState
from nas.store import cursors
from nas.store.reading import records
from nas.store.records import TrialRecord
from nas.store.tables import TrialRow
from search_spaces.errors import InvalidInput, Problem

SORTS = ("number", "-number", *(sign + name for name in METRICS for sign in ("", "-")))
"""Orders of trials: ascending, or descending with a minus; trials without the value come last."""


def page(
    session: Session,
    job_id: str,
    *,
    state: TrialState | None = None,
    sort: str = "number",
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[TrialRecord], str | None]:
    """Up to ``limit`` trials of a job, and the cursor of the next page if there is one.

    Raises:
        InvalidInput: an unknown order, or a cursor of another list.
    """
    if sort not in SORTS:
        raise InvalidInput([Problem("/sort", f"trials cannot be sorted by {sort!r}", SORTS)])
    column: InstrumentedAttribute[Any] = getattr(TrialRow, sort.removeprefix("-"))
    value, after = _position(cursor, sort)
    query = select(TrialRow).where(TrialRow.job_id == job_id)
    if state is not None:
        query = query.where(TrialRow.state == state)
    rows: list[TrialRow] = []
    if after is None or value is not None:
        key = (column, TrialRow.id)
        known = query.where(column.is_not(None))
        if after is not None:
            known = known.where(_behind(tuple_(*key), tuple_(value, after), sort))
        rows += session.scalars(_ordered(known, key, sort).limit(limit + 1))
    if len(rows) <= limit and sort.removeprefix("-") in METRICS:
        unknown = query.where(column.is_(None))
        if after is not None and value is None:
            unknown = unknown.where(_behind(TrialRow.id, after, sort))
        rest = limit + 1 - len(rows)
        rows += session.scalars(_ordered(unknown, (TrialRow.id,), sort).limit(rest))
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = cursors.encode(sort, getattr(rows[-1], column.key), rows[-1].id)
    return records(session, rows), following


def _position(cursor: str | None, sort: str) -> tuple[float | None, str | None]:
    """The sort value and id of the last trial of the page before."""
    if cursor is None:
        return None, None
    order, value, trial_id = cursors.decode(cursor, (str, (int, float, type(None)), str))
    if order != sort or isinstance(value, bool):
        raise cursors.refused()
    if sort.removeprefix("-") == "number" and not (isinstance(value, int) and 0 < value < 2**31):
        raise cursors.refused()
    return value, trial_id


def _behind(key: ColumnElement[Any] | Any, last: Any, sort: str) -> ColumnElement[bool]:
    behind: ColumnElement[bool] = key < last if sort.startswith("-") else key > last
    return behind


def _ordered(
    query: Select[Any], key: tuple[InstrumentedAttribute[Any], ...], sort: str
) -> Select[Any]:
    # all columns in one direction, so that an index is walked forwards or backwards
    if sort.startswith("-"):
        return query.order_by(*(column.desc() for column in key))
    return query.order_by(*key)
