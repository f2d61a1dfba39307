"""How a worker is started: as a command of its own, or embedded in `nas serve` as its child."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from nas.errors import NasError
from nas.logs import configure_logging
from nas.settings import Settings
from nas.store import Store
from workers.processes import Child, when_parent_ends
from workers.worker import Worker

log = structlog.get_logger()

RESTART_SECONDS = 1.0
DRAIN_SECONDS = 25.0


def run_worker(settings: Settings, stop: threading.Event | None = None) -> None:
    """Work until SIGTERM or SIGINT (or ``stop``), then drain.

    Raises:
        StoreUnavailable: the database cannot be used.
        Unsupported: Ray cannot start.
    """
    ended = stop or threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    store = Store(settings.database_url)
    store.check()
    Worker(settings, store).run(ended)


@contextmanager
def embedded_worker(settings: Settings) -> Iterator[None]:
    """A worker as a child process for as long as the block runs; started again when it dies."""
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(settings, ended), name="worker-keeper")
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def _keep(settings: Settings, ended: threading.Event) -> None:
    child = _start(settings)
    while not ended.wait(0.2):
        if child.exit_code is not None:
            log.warning("the worker has ended, starting another", exit_code=child.exit_code)
            if ended.wait(RESTART_SECONDS):
                return
            child = _start(settings)
    child.end(grace=DRAIN_SECONDS)


def _start(settings: Settings) -> Child:
    return Child("workers.service", environment={"NAS_JOB_SETTINGS": settings.model_dump_json()})


def main() -> None:
    """The embedded worker's life."""
    settings = Settings.model_validate_json(os.environ["NAS_JOB_SETTINGS"])
    configure_logging(settings)
    ended = threading.Event()
    when_parent_ends(ended.set)
    try:
        run_worker(settings, ended)
    except NasError as error:
        log.error("the worker cannot work", reason=str(error))
        time.sleep(RESTART_SECONDS)
        sys.exit(1)


if __name__ == "__main__":
    main()
