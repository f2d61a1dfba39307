"""Commands that run parts of the service here: serve, worker, db upgrade, config."""

from __future__ import annotations

import ipaddress
import signal
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import configuration
from nas.cli.output import Json, bad_input, print_json, print_table

if TYPE_CHECKING:
    from nas.settings import Settings

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/NAME. By default a file in the data folder.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of database, data sets and checkpoints."),
]


def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Where to listen: an address of this machine only.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="0 takes any free port.")
    ] = None,
    database: Database = None,
    data: Data = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only the API and the dashboard.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the API, the dashboard and one worker until Ctrl-C.

    SQLite and files lie under ./paretoformer/ unless told otherwise. With --json, one line of JSON
    says the URL once the service answers.
    """
    settings = configuration.load(
        host=host, port=port, database=database, data=data, log_format="json" if as_json else None
    )
    _check_loopback(settings.host)
    worker_wanted = not no_worker
    if worker_wanted:
        _check_worker_parts("or use --no-worker")
        settings = _located(settings)
    # a service that is told to stop has done what it should
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _serve(settings, worker_wanted, as_json)
    except KeyboardInterrupt:
        if not as_json:
            typer.echo("stopped")


def worker(
    database: Database = None,
    data: Data = None,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", help="A running Ray cluster; local starts a private one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C: it claims jobs and trains their trials.

    With --json its log is lines of JSON.
    """
    settings = configuration.load(
        database=database,
        data=data,
        ray_address=ray_address,
        log_format="json" if as_json else None,
    )
    _check_worker_parts("on this machine")
    settings = _located(settings)
    from nas.logs import configure_logging
    from workers.service import run_worker

    configure_logging(settings)
    place = configuration.without_password(settings.database_url)
    if as_json:
        print_json({"database": place, "ray_address": settings.ray_address}, indent=None)
    else:
        typer.echo(f"a worker for {place}; Ctrl-C stops it")
    run_worker(settings)


def upgrade_database(database: Database = None, data: Data = None, as_json: Json = False) -> None:
    """Make the database, or bring it to this version in place."""
    from nas.store.migrate import current, upgrade

    settings = configuration.load(database=database, data=data)
    upgrade(settings.database_url)
    place = configuration.without_password(settings.database_url)
    version = current(settings.database_url)
    if as_json:
        print_json({"database": place, "version": version})
    else:
        typer.echo(f"{place} is at version {version}")


def config(as_json: Json = False) -> None:
    """Show the settings and where each comes from."""
    settings = configuration.load()
    origins = configuration.origins(settings)
    values: dict[str, Any] = configuration.shown(settings)
    if as_json:
        print_json({n: {"value": values[n], "from": origins[n]} for n in values})
        return
    print_table(
        ("setting", "value", "from"),
        [(name, value, origins[name]) for name, value in values.items()],
        fold=("value",),
    )


def _serve(settings: Settings, worker_wanted: bool, as_json: bool) -> None:
    from api.server import AddressUnavailable, bind
    from api.server import serve as serve_api
    from nas.logs import configure_logging
    from nas.store.migrate import upgrade

    try:
        listening = bind(settings.host, settings.port)
    except AddressUnavailable as error:
        raise bad_input(str(error)) from error
    configure_logging(settings)

    def ready(url: str) -> None:
        if as_json:
            place = configuration.without_password(settings.database_url)
            print_json({"url": url, "database": place, "data": str(settings.data)}, indent=None)
            return
        typer.echo(f"Paretoformer is at {url} (dashboard), {url}/docs (API); Ctrl-C stops it")

    with listening:
        upgrade(settings.database_url)
        with _worker(settings, worker_wanted):
            serve_api(settings, listening=listening, on_ready=ready)


def _worker(settings: Settings, wanted: bool) -> AbstractContextManager[None]:
    if not wanted:
        return nullcontext()
    from workers.service import embedded_worker

    return embedded_worker(settings)


def _check_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise bad_input(
            f"--host {host}: whoever reaches the service may run jobs on it, as it knows no keys "
            "yet; so it listens on this machine only",
            allowed=("127.0.0.1", "::1", "localhost"),
        )


def _located(settings: Settings) -> Settings:
    """What workers are to know: the carbon intensity of their country."""
    from nas.carbon import located

    return located(settings)


def _check_worker_parts(otherwise: str) -> None:
    missing = [name for name in ("torch", "ray") if find_spec(name) is None]
    if missing:
        raise bad_input(
            f"a worker needs {' and '.join(missing)}: "
            f"pip install 'paretoformer[worker]' {otherwise}"
        )
