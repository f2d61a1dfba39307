"""PostgreSQL connections that give up on a server which takes what it is sent and says nothing.

TCP notices a machine that has gone, ``statement_timeout`` is kept by the server itself: neither
helps against a server process that stands still.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

SILENT_SECONDS = 15.0
"""So long may a statement go without an answer; ours take milliseconds, the longest seconds."""

T = TypeVar("T")


class Connection(psycopg.Connection[Any]):
    """One whose every wait for the server ends."""

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        """Wait for the server as the driver does.

        Raises:
            psycopg.OperationalError: it has been silent for too long; the connection is closed.
        """
        return super().wait(self._heard(gen), *arguments, **options)

    def _heard(self, gen: PQGen[T]) -> Generator[Wait, Ready | int, T]:
        heard = time.monotonic()
        try:
            ready = yield next(gen)
            while True:
                # whoever waits comes by every 0.1 s, also when there is nothing to read
                if ready != Ready.NONE:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENT_SECONDS:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"the server has not answered for {SILENT_SECONDS:g} s"
                    )
                ready = yield gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


def connect(_dialect: object, _record: object, arguments: Any, options: Any) -> Connection:
    """Make a connection, for SQLAlchemy's event ``do_connect``."""
    return Connection.connect(*arguments, **options)
