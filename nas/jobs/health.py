"""Whether the service can do its work, and what it holds: for probes and monitoring."""

from __future__ import annotations

from datetime import timedelta

from nas.errors import StoreUnavailable
from nas.schemas import Response
from nas.settings import Settings
from nas.store import Store, clock, counts, workers

MISSED_BEATS = 3
"""A worker is taken for dead when it was silent for this many leases."""


class Check(Response):
    """One thing that must be right, and what is wrong if it is not."""

    name: str
    ok: bool
    detail: str


class Readiness(Response):
    """Whether jobs that are submitted now will be run."""

    ready: bool
    checks: list[Check]


def readiness(store: Store, settings: Settings) -> Readiness:
    """Look whether the database is there and upgraded, and whether a worker is alive."""
    try:
        store.check()
        database = Check(name="database", ok=True, detail="reachable and upgraded")
        worker = _worker(store, settings)
    except StoreUnavailable as error:
        database = Check(name="database", ok=False, detail=str(error))
        worker = Check(name="worker", ok=False, detail="unknown while the database is unusable")
    checks = [database, worker]
    return Readiness(ready=all(check.ok for check in checks), checks=checks)


def job_counts(store: Store) -> dict[str, float]:
    """Jobs by state.

    Raises:
        StoreUnavailable
    """
    with store.read() as session:
        return {state.value: count for state, count in counts.jobs(session).items()}


def export_counts(store: Store) -> dict[str, float]:
    """Exports by state.

    Raises:
        StoreUnavailable
    """
    with store.read() as session:
        return {state.value: count for state, count in counts.exports(session).items()}


def _worker(store: Store, settings: Settings) -> Check:
    with store.read() as session:
        oldest = clock.now(session) - timedelta(seconds=MISSED_BEATS * settings.lease_seconds)
        alive = [worker for worker in workers.all(session) if worker.heartbeat >= oldest]
    if not alive:
        return Check(name="worker", ok=False, detail="no worker is alive: run `nas worker`")
    return Check(name="worker", ok=True, detail=f"{len(alive)} alive")
