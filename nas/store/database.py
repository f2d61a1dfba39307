"""Opens the database and hands out transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from nas.errors import StoreUnavailable
from search_spaces.errors import InvalidInput, Problem

REVISION = "0003"
"""The migration that this version of the tables needs."""

BUSY_SECONDS = 30
CONNECT_SECONDS = 5
SILENCE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server whose machine has gone says nothing: by itself TCP would wait for a quarter of an hour.

In seconds, the last in milliseconds.
"""
WRITE = "nas_write"
"""Execution option of connections that may write."""
FILE = "nas_file"
"""Key of the path and identity of the SQLite file that a pooled connection has opened."""


class Store:
    """The database of a process: transactions to read in and transactions to write in.

    Construction opens nothing; the first transaction does.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        engine = create(self._url)
        sqlite = self._url.get_backend_name() == "sqlite"
        # SQLite's own wait for the write lock is a poll, unfair under load: threads of one process
        # queue here instead, and only processes meet at the file
        self._writers = threading.RLock() if sqlite else None
        if not sqlite:
            from nas.store import silence  # and the driver, which a SQLite file does without

            # migrations have engines of their own: what they wait for may be long
            event.listen(engine, "do_connect", silence.connect)
        self._engine = engine
        self._reading = (
            engine
            if sqlite
            else engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        )
        self._writing = engine.execution_options(**{WRITE: True})

    @property
    def url(self) -> str:
        """Where the database is, without its password."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database and changes nothing.

        Raises:
            StoreUnavailable: the database cannot be opened or reached, or is not upgraded.
        """
        with explained(self.url), Session(self._reading, autoflush=False) as session:
            session.connection()
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits when the block ends and is undone when it raises.

        Raises:
            StoreUnavailable: the database cannot be opened, reached or written, or is not upgraded.
        """
        with (
            self._turn(),
            explained(self.url),
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            session.connection()
            yield session

    def check(self) -> None:
        """Make sure that the database can be used.

        Raises:
            StoreUnavailable: it cannot be opened or reached, or has another version.
        """
        with self.read() as session:
            found = session.scalars(text("SELECT version_num FROM alembic_version")).all()
        if found != [REVISION]:
            raise StoreUnavailable(
                f"database {self.url} has version {', '.join(found) or 'none'}, this program needs "
                f"{REVISION}: run `nas db upgrade`"
            )

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()

    def _turn(self) -> AbstractContextManager[Any]:
        return self._writers or nullcontext()


def parse_url(url: str) -> URL:
    """The URL of a SQLite file or a PostgreSQL database, with the driver that we use.

    Raises:
        StoreUnavailable: it is neither.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreUnavailable(
            "the database URL cannot be read; use sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreUnavailable(f"{backend} is not supported: use SQLite or PostgreSQL")
    if parsed.database in (None, "", ":memory:"):
        raise StoreUnavailable(
            "a SQLite database needs a file that processes share: sqlite:///FILE"
        )
    return parsed.set(drivername="sqlite+pysqlite")


def create(url: URL) -> Engine:
    """An engine whose transactions begin as their purpose asks (see ``WRITE``)."""
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url,
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=25,
            pool_timeout=BUSY_SECONDS,
            connect_args={"connect_timeout": CONNECT_SECONDS, **SILENCE},
        )
    engine = create_engine(
        url, max_overflow=-1, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "checkout", _refuse_ghost)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    record.info[FILE] = path, _identity(path)
    # NORMAL with WAL: a killed process loses nothing; a power cut may lose the last commits, whole.
    # A fresh file that another process is turning to WAL is refused at once, without the busy wait
    for attempt in _busy_wait():
        with attempt:
            connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _busy_wait() -> Retrying:
    return Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(0.01, 0.05),
        stop=stop_after_delay(BUSY_SECONDS),
        reraise=True,
    )


def _is_busy(error: BaseException) -> bool:
    # the low byte: the extended codes say of what kind
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, sqlite3.OperationalError) and code & 0xFF == sqlite3.SQLITE_BUSY


def _refuse_ghost(
    _connection: sqlite3.Connection, record: ConnectionPoolEntry, _proxy: object
) -> None:
    # a file that was deleted or replaced lives on for who has it open, and what is written there
    # would be lost: the pool opens another
    path, opened = record.info[FILE]
    if _identity(path) != opened:
        raise DisconnectionError(f"{path} is not the file that was opened")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads first and writes later can fail at once whatever the busy timeout,
    # so one that may write takes the lock at its beginning, and one that reads cannot write
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what a driver complains of into our errors: no database, or a value that it cannot take.

    Raises:
        StoreUnavailable, InvalidInput
    """
    try:
        yield
    except DataError as error:
        raise InvalidInput(
            [Problem("", f"the database cannot hold this: {_said(error)}")]
        ) from error
    except PoolTimeout as error:
        raise StoreUnavailable(f"database {url}: all connections are in use") from error
    except DBAPIError as error:
        if reason := _reason(error):
            raise StoreUnavailable(f"database {url}: {reason}") from error
        raise


def _reason(error: DBAPIError) -> str | None:
    """Why the database cannot be used, or None when the statement is at fault."""
    original, said = error.orig, _said(error)
    if "no such table" in said or getattr(original, "sqlstate", None) == "42P01":
        return "it has not been upgraded yet: run `nas db upgrade`"
    if error.connection_invalidated:
        return f"the connection was lost ({said})"
    if isinstance(original, sqlite3.DatabaseError):
        damaged = "not a database" in said or "malformed" in said
        return said if damaged or isinstance(original, sqlite3.OperationalError) else None
    # PostgreSQL: no SQLSTATE (never connected), connection (08), refused (28, 3D), resources (53),
    # shutting down (57), read-only (25006)
    state = getattr(original, "sqlstate", None)
    if state is None or state.startswith(("08", "28", "3D", "53", "57")) or state == "25006":
        return said
    return None


def _said(error: DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else repr(error.orig)
