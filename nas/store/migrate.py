"""Brings a database to the shape of ``tables.py``; the only place that needs Alembic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from nas.errors import StoreUnavailable
from nas.store.database import WRITE, create, explained, parse_url

_LOCK = 0x6E6173  # of this program's migrations in a PostgreSQL database
_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to a revision, the newest; a SQLite file is made with its folder.

    All in one transaction, one process at a time; nothing happens when it is up to date.

    Raises:
        StoreUnavailable: it cannot be opened, reached or written, or a newer version made it.
    """
    parsed = parse_url(url)
    _make_folder(parsed)
    with _transaction(parsed, write=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _refuse_unknown(connection, parsed)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def current(url: str) -> str | None:
    """The revision of the database; None for an empty one.

    Raises:
        StoreUnavailable: it cannot be opened or reached.
    """
    parsed = parse_url(url)
    with _transaction(parsed, write=False) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The revision to which ``upgrade`` brings a database."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def revisions() -> list[str]:
    """All revisions, the oldest first."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in scripts][::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _make_folder(url: URL) -> None:
    if url.get_backend_name() != "sqlite" or url.database is None:
        return
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"cannot make the database's folder: {error}") from error


@contextmanager
def _transaction(url: URL, *, write: bool) -> Iterator[Connection]:
    engine = create(url)
    try:
        with (
            explained(url.render_as_string(hide_password=True)),
            engine.execution_options(**{WRITE: write}).begin() as connection,
        ):
            yield connection
    finally:
        engine.dispose()


def _refuse_unknown(connection: Connection, url: URL) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in revisions():
        raise StoreUnavailable(
            f"database {url.render_as_string(hide_password=True)} has version {found}, which is "
            "newer than this program: upgrade the program"
        )
