"""Migrations: from nothing to exactly the tables that the program uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, select, text
from sqlalchemy.sql import sqltypes

from nas.errors import StoreUnavailable
from nas.store import Store, migrate
from nas.store.tables import Base


def test_a_migrated_database_is_what_the_tables_say(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.newest()
    store = Store(empty_url)
    store.check()
    with store.read() as session:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(session.connection(), opts=options)
        assert compare_metadata(context, Base.metadata) == []
        found = inspect(session.connection())
        # Alembic does not compare these
        for table in Base.metadata.tables.values():
            checks = {c["name"] for c in found.get_check_constraints(table.name)}
            assert checks == ({f"ck_{table.name}_state"} if "state" in table.columns else set())
            for key in found.get_foreign_keys(table.name):
                assert key["options"] == {"ondelete": "CASCADE"}
            key = found.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key]
    store.close()


def test_upgrading_twice_changes_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    store = Store(empty_url)
    with store.write() as session:
        session.execute(
            text("INSERT INTO workers VALUES ('w', 'h', 1, 2.0, '2025-01-01 00:00:00')")
        )
    migrate.upgrade(empty_url)
    with store.read() as session:
        assert session.scalar(text("SELECT count(*) FROM workers")) == 1
    store.close()


@pytest.mark.parametrize("revision", migrate.revisions()[:-1])
def test_a_database_of_an_older_revision_keeps_its_rows(empty_url: str, revision: str) -> None:
    migrate.upgrade(empty_url, revision)
    store = Store(empty_url)
    with store.write() as session:
        _fill(session.connection())
        before = _content(session.connection())
    assert all(rows for rows in before.values())
    migrate.upgrade(empty_url)
    with store.read() as session:
        after = _content(session.connection())
    for table, rows in before.items():
        for old, new in zip(rows, after[table], strict=True):
            assert new.items() >= old.items()
    store.close()


def _fill(connection: Connection) -> None:
    """A row in every table, with a value in every column."""
    tables = MetaData()
    tables.reflect(connection)
    for table in tables.sorted_tables:
        if table.name != "alembic_version":
            connection.execute(table.insert(), {c.name: _value(c.name, c.type) for c in table.c})


def _value(column: str, kind: sqltypes.TypeEngine[Any]) -> Any:
    if column == "state":
        return "failed"
    if isinstance(kind, sqltypes.JSON):
        return {"a": [1, None]}
    if isinstance(kind, sqltypes.DateTime):
        return datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    if isinstance(kind, sqltypes.Boolean):
        return True
    if isinstance(kind, sqltypes.Integer):
        return 7
    return 1.5 if isinstance(kind, sqltypes.Numeric | sqltypes.Float) else "text"


def _content(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    tables = MetaData()
    tables.reflect(connection)
    return {
        table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
        for table in tables.sorted_tables
        if table.name != "alembic_version"
    }


def test_several_processes_may_upgrade_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate.upgrade, [empty_url] * 4))
    assert migrate.current(empty_url) == migrate.newest()


def test_a_database_of_a_newer_program_is_left_alone(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    store = Store(empty_url)
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match=r"9999.*newer"):
        migrate.upgrade(empty_url)
    store.close()


def test_an_empty_database_has_no_revision(empty_url: str) -> None:
    migrate.upgrade(empty_url)  # which makes the folder
    store = Store(empty_url)
    with store.write() as session:
        session.execute(text("DROP TABLE alembic_version"))
    assert migrate.current(empty_url) is None
    store.close()
