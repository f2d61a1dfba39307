"""All commands in one place, as ``nas --help`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from nas import __version__
from nas.cli import catalogue, data, jobs, report, results, service, training
from nas.cli.connection import Url
from nas.cli.output import Commands

OVER_HTTP = "Jobs and results (over HTTP: --url or NAS_URL)"
LOCAL = "On this machine"
OFFERED = "What is on offer"

app = typer.Typer(
    name="nas",
    cls=Commands,
    help="Neural architecture search for efficient Transformers.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    OVER_HTTP: {
        "submit": jobs.submit,
        "jobs": jobs.list_jobs,
        "show": jobs.show,
        "watch": jobs.watch,
        "cancel": jobs.cancel,
        "pause": jobs.pause,
        "resume": jobs.resume,
        "delete": jobs.delete,
        "trials": results.trials,
        "pareto": results.pareto,
        "report": report.report,
        "export": results.export,
    },
    LOCAL: {
        "serve": service.serve,
        "worker": service.worker,
        "train": training.train,
        "profile": catalogue.profile,
        "config": service.config,
    },
    OFFERED: {
        "spaces": catalogue.spaces,
        "tasks": catalogue.tasks,
        "mechanisms": catalogue.mechanisms,
        "strategies": catalogue.strategies,
        "metrics": catalogue.metrics,
    },
}
DATA_COMMANDS: dict[str, Callable[..., None]] = {
    "add": data.add,
    "list": data.list_datasets,
    "rm": data.remove,
}


@app.callback()
def root(
    context: typer.Context,
    url: Url = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Neural architecture search for efficient Transformers."""
    # given before the command it counts as if given after it
    given = {"url": url} if url else {}
    context.default_map = {
        **dict.fromkeys(COMMANDS[OVER_HTTP], given),
        "data": dict.fromkeys(DATA_COMMANDS, given),
    }


for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)

_data = typer.Typer(no_args_is_help=True, help="Your own data sets, kept by the service.")
for name, command in DATA_COMMANDS.items():
    _data.command(name)(command)
app.add_typer(_data, name="data", rich_help_panel=OVER_HTTP)

_db = typer.Typer(no_args_is_help=True, help="The database.")
_db.command("upgrade")(service.upgrade_database)
app.add_typer(_db, name="db", rich_help_panel=LOCAL)
