"""Commands on a user's own data sets: add, list, rm."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.connection import Url, command, connect
from nas.cli.output import Json, ago, bad_input, byte_count, console, print_json, print_table


class Kind(StrEnum):
    """What the data are; see ``nas.catalogue.tasks.DataKind``."""

    TEXT = "text"
    LABELLED = "labelled"


USES = {
    Kind.TEXT: "name: text_lm, dataset: {}",
    Kind.LABELLED: "name: text_classification, dataset: {}, classes: HOW MANY LABELS",
}


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A text, or labelled texts.")],
    name: Annotated[str, typer.Option("--name", help="What jobs will call it.")],
    kind: Annotated[
        Kind,
        typer.Option("--kind", help="labelled: JSON lines, CSV or Parquet with text and label."),
    ] = Kind.TEXT,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Upload data for jobs to train on."""
    if not file.is_file():
        raise bad_input(f"{file} {'is a folder' if file.is_dir() else 'does not exist'}")
    size = byte_count(file.stat().st_size)
    with connect(url) as client, console(stderr=True).status(f"uploading {size}"):
        dataset = client.add_dataset(name, file, kind.value)
    if as_json:
        print_json(dataset)
        return
    typer.echo(f"data set {dataset.name}: {byte_count(dataset.bytes)}, SHA-256 {dataset.sha256}")
    typer.echo(f"use it in a job as  task: {{{USES[kind].format(dataset.name)}}}")


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
