"""The service that a command talks to, and the job that its user means."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Self

import typer

from nas.cli import configuration
from nas.errors import NotFound

if TYPE_CHECKING:
    from nas.client import Client

LATEST = "latest"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the service is. By default NAS_URL, else http://127.0.0.1:8000.",
    ),
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, or latest.", show_default=False)
]


@contextmanager
def connect(url: str | None) -> Iterator[Client]:
    """A client of the service at ``url``, by default that of the settings."""
    from nas.client import Client

    with Client(configuration.load(url=url).url) as client:
        yield client


def resolve(client: Client, job: str) -> str:
    """The id of the job that is meant.

    Raises:
        NotFound: ``latest``, but there is none.
    """
    if job != LATEST:
        return job
    for newest in client.jobs():
        return newest.id
    raise NotFound("there is no job yet: submit one with `nas submit FILE`")


def resolve_trial(client: Client, job_id: str, trial: str) -> str:
    """The id of a trial given by its number in the job; all else is passed on as it is.

    Raises:
        NotFound: the job has no trial of that number.
    """
    if not trial.isdecimal():
        return trial
    for found in client.trials(job_id, limit=1000):
        if found.number == int(trial):
            return found.id
    raise NotFound(f"job {job_id} has no trial number {trial}: see `nas trials {job_id}`")


class Onlooker:
    """Looks on while a job runs: Ctrl-C leaves the job alone, and says how to see or to end it."""

    def __init__(self, job: str) -> None:
        self.job = job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            typer.echo(
                f"\nThe job goes on. Watch it with:  {command(f'watch {self.job}')}\n"
                f"                 Cancel it with: {command(f'cancel {self.job}')}",
                err=True,
            )


def command(words: str) -> str:
    """A command to go on with, for the same service as this one."""
    arguments = sys.argv[1:]
    for position, argument in enumerate(arguments):
        if argument == "--url" and position + 1 < len(arguments):
            return f"nas {words} --url {arguments[position + 1]}"
        if argument.startswith("--url="):
            return f"nas {words} {argument}"
    return f"nas {words}"
