"""A PostgreSQL whose processes stand still: connections are made, or open, and nothing is said."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from nas.errors import StoreUnavailable
from nas.store import Store, database, silence
from tests.e2e.lost_database import database_server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert silence.SILENT_SECONDS <= 15
    monkeypatch.setattr(silence, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)  # the least that libpq takes


@pytest.fixture
def store(migrated_postgres: str) -> Iterator[Store]:
    opened = Store(migrated_postgres)
    yield opened
    opened.close()


class Backend:
    """The server process of a session, which can be made to stand still."""

    def __init__(self, session: Session) -> None:
        process = session.scalar(text("SELECT pg_backend_pid()"))
        assert isinstance(process, int)
        self.process = process

    def stop(self) -> None:
        os.kill(self.process, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process, signal.SIGCONT)


def ask_in_vain(store: Store, backends: list[Backend]) -> None:
    with store.read() as session:
        backends.append(Backend(session))
        backends[0].stop()
        session.execute(text("SELECT 1"))


def commit_in_vain(store: Store, backends: list[Backend]) -> None:
    with store.write() as session:
        backends.append(Backend(session))
        session.execute(text("SELECT pg_advisory_xact_lock(1)"))
        backends[0].stop()


@pytest.mark.parametrize("attempt", [ask_in_vain, commit_in_vain])
def test_what_has_no_answer_is_given_up(
    store: Store, attempt: Callable[[Store, list[Backend]], None]
) -> None:
    backends: list[Backend] = []
    try:
        with pytest.raises(StoreUnavailable, match="not answered for 2 s"):
            attempt(store, backends)
        store.check()  # by another connection
    finally:
        backends[0].go_on()
    with store.write() as session:  # the server has let go of what was held
        session.execute(text("SELECT pg_advisory_xact_lock(1)"))


def test_a_connection_of_the_pool_that_is_silent_is_replaced(store: Store) -> None:
    with store.read() as session:
        backend = Backend(session)
    backend.stop()
    try:
        with store.read() as session:
            assert Backend(session).process != backend.process
    finally:
        backend.go_on()


def test_an_answer_that_comes_slowly_but_steadily_is_waited_for(store: Store) -> None:
    rows = text("SELECT repeat('x', 1000000), pg_sleep(0.6) FROM generate_series(1, 5)")
    with store.read() as session:
        assert len(session.execute(rows).all()) == 5


def test_a_server_that_stands_still_as_a_whole_and_goes_on() -> None:
    with database_server() as server:
        store = Store(server.url)
        with store.read() as session:
            session.execute(text("SELECT 1"))
        with server.frozen():
            for _ in range(2):  # by the open connection, and by a new one
                with pytest.raises(StoreUnavailable), store.read() as session:
                    session.execute(text("SELECT 1"))
        with store.read() as session:
            assert session.scalar(text("SELECT 1")) == 1
        store.close()
