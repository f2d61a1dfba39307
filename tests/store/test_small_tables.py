"""Data sets, latency tables, workers."""

from __future__ import annotations

from typing import Any

import pytest

from nas.errors import Conflict, NotFound
from nas.store import Store, datasets, latency, workers


def _add(session: Any, name: str, sha256: str) -> Any:
    return datasets.add(session, name=name, kind="text", sha256=sha256, size=10)


def test_a_name_stands_for_one_content(store: Store) -> None:
    with store.write() as session:
        first, created = _add(session, "mine", "a" * 64)
        assert created
        assert _add(session, "mine", "a" * 64) == (first, False)
    with pytest.raises(Conflict), store.write() as session:
        _add(session, "mine", "b" * 64)
    with store.read() as session:
        assert datasets.get(session, "mine") == first


def test_a_file_is_free_when_its_last_name_is_gone(store: Store) -> None:
    with store.write() as session:
        _add(session, "one", "a" * 64)
        _add(session, "two", "a" * 64)
        assert datasets.delete(session, "one") is None
        assert datasets.delete(session, "two") == "a" * 64
    with pytest.raises(NotFound), store.write() as session:
        datasets.delete(session, "two")


def test_data_sets_are_listed_by_name(store: Store) -> None:
    with store.write() as session:
        for name in ("c", "a", "b"):
            _add(session, name, name * 64)
    with store.read() as session:
        assert [d.name for d in datasets.page(session, limit=2)] == ["a", "b"]
        assert [d.name for d in datasets.page(session, after="b")] == ["c"]


def test_a_latency_table_replaces_the_one_before(store: Store) -> None:
    with store.write() as session:
        assert latency.get(session, "cpu") is None
        latency.put(session, "cpu", {"full": 1.5})
        latency.put(session, "cpu", {"full": 2.5})
        latency.put(session, "gpu", {})
    with store.read() as session:
        assert latency.get(session, "cpu") == {"full": 2.5}
        assert latency.get(session, "gpu") == {}


def test_a_job_may_have_a_latency_table_of_its_own(store: Store) -> None:
    with store.write() as session:
        latency.put(session, "cpu", {"of": "all"})
        for job in ("job_1", "job_11"):
            latency.put(session, "cpu", {"of": job}, job)
        assert latency.get(session, "cpu") == {"of": "all"}
        assert latency.get(session, "cpu", "job_1") == {"of": "job_1"}
        assert latency.get(session, "cpu", "job_2") is None
        assert latency.newest(session, "cpu") == {"of": "all"}
    with store.write() as session:
        latency.forget(session, "job_1")
        assert latency.get(session, "cpu", "job_1") is None
        assert latency.get(session, "cpu", "job_11") == {"of": "job_11"}
        assert latency.get(session, "cpu") == {"of": "all"}


def test_workers_come_beat_and_leave(store: Store) -> None:
    with store.write() as session:
        for worker in ("b", "a"):
            workers.beat(session, worker, host="here", pid=1, started=2.5)
    with store.read() as session:
        before = workers.all(session)
    assert [(w.id, w.host, w.pid, w.started) for w in before] == [
        ("a", "here", 1, 2.5),
        ("b", "here", 1, 2.5),
    ]
    with store.write() as session:
        workers.beat(session, "a", host="here", pid=1, started=2.5)
        workers.leave(session, "b")
    with store.read() as session:
        (after,) = workers.all(session)
    assert after.heartbeat > before[0].heartbeat
