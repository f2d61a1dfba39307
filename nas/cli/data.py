"""Commands on a user's own data sets: add, list, rm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.connection import Url, command, connect
from nas.cli.output import Json, ago, bad_input, byte_count, console, print_json, print_table


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A text file.")],
    name: Annotated[str, typer.Option("--name", help="What jobs will call it.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Upload a text for jobs to train on."""
    if not file.is_file():
        raise bad_input(f"{file} {'is a folder' if file.is_dir() else 'does not exist'}")
    size = byte_count(file.stat().st_size)
    with connect(url) as client, console(stderr=True).status(f"uploading {size}"):
        dataset = client.add_dataset(name, file)
    if as_json:
        print_json(dataset)
        return
    typer.echo(f"data set {dataset.name}: {byte_count(dataset.bytes)}, SHA-256 {dataset.sha256}")
    typer.echo(f"use it in a job as  task: {{name: text_lm, dataset: {dataset.name}}}")


def list_datasets(url: Url = None, as_json: Json = False) -> None:
    """List the uploaded data sets."""
    with connect(url) as client:
        datasets = list(client.datasets())
    if as_json:
        print_json({"items": datasets})
        return
    print_table(
        ("name", "kind", "size", "sha256", "uploaded"),
        [(d.name, d.kind, byte_count(d.bytes), d.sha256[:12], ago(d.created_at)) for d in datasets],
        right=("size",),
        empty=f"no data sets: upload one with `{command('data add FILE --name NAME')}`",
    )


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set's name.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Remove a data set that no unfinished job needs."""
    with connect(url) as client:
        client.delete_dataset(name)
    if as_json:
        print_json({"deleted": name})
    else:
        typer.echo(f"data set {name} is removed")
