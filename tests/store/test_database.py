"""Transactions: what is refused, what is waited for, and what is said when nothing can be done."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nas.errors import StoreUnavailable
from nas.store import Store, bills, database, events, jobs, migrate
from nas.store.database import REVISION


def test_the_tables_need_the_newest_revision() -> None:
    assert migrate.newest() == REVISION


def test_sixteen_threads_can_write(lab: Any) -> None:
    job = lab.running()

    def write(thread: int) -> None:
        for _ in range(8):
            with lab.store.write() as session:
                bills.add_cost(session, job.id, job.token, search_core_seconds=1.0)
                events.append(session, job.id, "job", {"thread": thread})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    record = lab.record(job.id)
    assert (record.search_core_seconds, record.last_seq) == (128.0, 130)


def test_several_stores_on_one_database_wait_for_each_other(lab: Any, database_url: str) -> None:
    # threads of one store queue in the process; those of several meet at the database
    job = lab.running()
    stores = [Store(database_url) for _ in range(4)]

    def write(number: int) -> None:
        for _ in range(6):
            with stores[number % 4].write() as session:
                bills.add_cost(session, job.id, job.token, search_core_seconds=1.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for store in stores:
        store.close()
    assert lab.record(job.id).search_core_seconds == 48.0


def test_a_reader_sees_one_state_whatever_is_written_meanwhile(lab: Any) -> None:
    job_id = lab.queue()
    with lab.store.read() as session:
        before = jobs.record(session, job_id)
        lab.claim()
        session.expire_all()
        assert jobs.record(session, job_id) == before
    assert lab.record(job_id) != before


def test_a_reader_cannot_write(lab: Any) -> None:
    job_id = lab.queue()
    with (
        pytest.raises((DBAPIError, StoreUnavailable), match=r"(?i)read.?only"),
        lab.store.read() as s,
    ):
        jobs.cancel(s, job_id)


def test_an_exception_undoes_the_transaction(lab: Any) -> None:
    job_id = lab.queue()
    with pytest.raises(KeyError), lab.store.write() as session:
        raise KeyError(jobs.cancel(session, job_id).id)
    assert lab.record(job_id).state == "queued"


def test_a_database_without_tables_asks_to_be_upgraded(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    store = Store(empty_url)
    with pytest.raises(StoreUnavailable, match="nas db upgrade"):
        store.check()
    with pytest.raises(StoreUnavailable, match="nas db upgrade"), store.read() as session:
        jobs.record(session, "job_1")
    store.close()


def test_a_database_of_another_version_is_refused(store: Store) -> None:
    store.check()
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(StoreUnavailable, match=r"9999.*nas db upgrade"):
            store.check()
    finally:
        with store.write() as session:
            statement = text("UPDATE alembic_version SET version_num = :revision")
            session.execute(statement, {"revision": REVISION})


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/nowhere/store.db")
    with pytest.raises(StoreUnavailable, match="unable to open"):
        store.check()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="folder"):
        migrate.upgrade(f"sqlite:///{tmp_path}/file/store.db")


def test_a_file_that_cannot_be_written(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    store = Store(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StoreUnavailable, match="readonly"), store.write() as session:
        session.execute(text("DELETE FROM jobs"))


def test_a_file_that_was_deleted_is_noticed_and_found_again(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    store = Store(sqlite_url)
    store.check()
    kept = path.with_suffix(".kept")
    path.rename(kept)  # who has it open could go on reading and writing
    with pytest.raises(StoreUnavailable, match="nas db upgrade"):
        store.check()
    kept.replace(path)
    store.check()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("this is not a database, whatever its name may be\n" * 100)
    url = f"sqlite:///{path}"
    for use in (Store(url).check, lambda: migrate.upgrade(url), lambda: migrate.current(url)):
        with pytest.raises(StoreUnavailable, match="not a database"):
            use()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://root@localhost/nas", "mysql is not supported"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("no url at all", "cannot be read"),
    ],
)
def test_urls_that_name_no_database_of_ours(url: str, complaint: str) -> None:
    with pytest.raises(StoreUnavailable, match=complaint):
        Store(url)


def test_a_server_that_is_not_there_is_said_soon_and_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        start = time.monotonic()
        for use in (
            Store(f"postgresql://nas:secret@127.0.0.1:{port}/nas").check,
            lambda: migrate.upgrade(f"postgresql://nas:secret@127.0.0.1:{port}/nas"),
        ):
            with pytest.raises(StoreUnavailable) as refused:
                use()
            assert str(port) in str(refused.value)
            assert "secret" not in str(refused.value)
    assert time.monotonic() - start < 10


def test_a_server_that_never_answers_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert database.CONNECT_SECONDS <= 5
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)  # the least that libpq takes
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            Store(f"postgresql://nas@127.0.0.1:{silent.getsockname()[1]}/nas").check()
    assert time.monotonic() - start < 8
