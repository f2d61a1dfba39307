"""Runs the application under uvicorn until it is told to stop."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import uvicorn

from api.app import create_app
from nas.errors import NasError
from nas.settings import Settings
from nas.store import Store

BACKLOG = 2048
GRACE_SECONDS = 5
"""What requests that are under way get to end when the service stops."""


class AddressUnavailable(NasError):
    """The service cannot listen where it should."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        AddressUnavailable: the port is in use, or the host is not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressUnavailable(f"cannot listen on host {host!r}: {error.strerror}") from error
    try:
        # a port that was just given up may be taken; one that is listened on is refused still
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressUnavailable(f"cannot listen on {host}:{port}: {_reason(error)}") from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Where a service on this socket is found from this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    settings: Settings,
    *,
    listening: socket.socket | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then let requests end.

    listening: a socket from ``bind``, by default one for the settings' host and port.
    on_ready: told the URL once requests are answered.

    Raises:
        AddressUnavailable: before anything has started.
    """
    listening = listening or bind(settings.host, settings.port)
    store = Store(settings.database_url)
    config = uvicorn.Config(
        create_app(store, settings),
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    server = Server(config, on_ready=on_ready)
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        store.close()


class Server(uvicorn.Server):
    """A server that says when it is ready and ends event streams as it begins to stop."""

    def __init__(
        self, config: uvicorn.Config, *, on_ready: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and say so."""
        await super().startup(sockets)
        if self.started and self._on_ready and sockets:
            self._on_ready(url_of(sockets[0]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams, which would hold their connections open, then stop."""
        app = self.config.app
        if not isinstance(app, str):
            app.state.tailer.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there already; choose another port with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not; choose a port from 1024 on with --port"
    return error.strerror or str(error)
