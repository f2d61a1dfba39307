"""Commands on what is on offer, and the price of an architecture. None needs a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.output import Json, bad_input, print_fields, print_json, print_table
from nas.summary import short
from search_spaces.errors import InvalidInput

LARGEST_DOCUMENT = 1 << 20


def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A preset, as name or name@version.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the search spaces, or show one with its choices."""
    from nas.catalogue import description

    if name is not None:
        _print_space(description.space(name), as_json)
        return
    found = description.spaces()
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("space", "kind", "architectures", "description"),
        [
            (
                f"{s['name']}@{s['version']}",
                "causal" if s["causal"] else "encoder",
                f"{int(s['size']):,}",
                s["description"],
            )
            for s in found
        ],
        right=("architectures",),
        fold=("description",),
    )


def tasks(as_json: Json = False) -> None:
    """List the tasks with their settings."""
    from nas.catalogue import description

    found = description.tasks()
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("task", "kind", "default space", "settings", "description"),
        [
            (
                t["name"],
                "causal" if t["causal"] else "encoder",
                t["default_space"],
                _settings(t["defaults"]),
                t["description"],
            )
            for t in found
        ],
        fold=("settings", "description"),
    )


def mechanisms(
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="attention, feedforward, halting or residual."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the mechanisms that architectures are made of."""
    from nas.catalogue import description

    if kind not in (None, *description.KINDS):
        raise bad_input(f"there is no kind of mechanism {kind!r}", allowed=description.KINDS)
    found = description.mechanisms(kind)
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("kind", "type", "causal", "complexity", "settings", "source"),
        [
            (
                m["kind"],
                m["name"],
                "yes" if m["causal"] else "no",
                m["complexity"],
                _settings(m["defaults"]),
                m["citation"],
            )
            for m in found
        ],
        fold=("complexity", "settings", "source"),
    )


def strategies(as_json: Json = False) -> None:
    """List the search strategies with their settings."""
    from nas.catalogue import description

    found = description.strategies()
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("strategy", "title", "settings", "description", "source"),
        [
            (s["name"], s["title"], _settings(s["defaults"]), s["description"], s["citation"])
            for s in found
        ],
        fold=("title", "settings", "description", "source"),
    )


def metrics(as_json: Json = False) -> None:
    """List the metrics: units, directions, when they are known."""
    from nas.catalogue import description

    found = description.metrics()
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("metric", "unit", "goal", "known", "description"),
        [(m["name"], m["unit"], m["direction"], m["known"], m["description"]) for m in found],
        fold=("unit", "known", "description"),
    )


def profile(
    file: Annotated[
        Path,
        typer.Argument(metavar="ARCH.json", help="An architecture, or an exported config.json."),
    ],
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 1,
    sequence_length: Annotated[int, typer.Option("--sequence-length", min=1)] = 512,
    vocab_size: Annotated[int, typer.Option("--vocab-size", min=1)] = 256,
    outputs: Annotated[int, typer.Option("--outputs", min=1)] = 256,
    causal: Annotated[bool, typer.Option("--causal/--encoder")] = True,
    as_json: Json = False,
) -> None:
    """Price an architecture without training it."""
    from nas.catalogue.metrics import METRICS
    from nas.catalogue.tasks import TaskShape
    from nas.measure import profile as price
    from nas.measure.profile import device_table

    arch = _architecture(file)
    costs = price(
        arch,
        batch_size=batch_size,
        sequence_length=sequence_length,
        vocab_size=vocab_size,
        num_outputs=outputs,
        causal=causal,
    )
    if as_json:
        print_json(costs)
        return
    print_table(
        ("metric", "value", "unit"),
        [(name, short(name, value), METRICS[name].unit) for name, value in costs.items()],
        right=("value",),
    )
    shape = TaskShape(vocab_size, outputs, sequence_length, causal, "token")
    table = device_table([arch], shape, batch_size)
    company = "alone" if table.alone else "beside other work"
    off = table.modes["pass"].relative_error
    typer.echo(f"latency: of {table.device}, calibrated {company}, off by {off:.0%} on average")


def _architecture(file: Path) -> Any:
    """The architecture in a file.

    Raises:
        InvalidInput: it cannot be read, or is none.
    """
    from pydantic import ValidationError

    from search_spaces.architecture import Architecture
    from search_spaces.validation import problems_in

    try:
        if file.stat().st_size > LARGEST_DOCUMENT:
            raise bad_input(f"{file} is too large for an architecture")
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise bad_input(f"cannot read {file}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise bad_input(f"{file} is not JSON: {error}") from error
    prefix = ""
    if isinstance(document, dict) and "architecture" in document:
        document, prefix = document["architecture"], "/architecture"
    try:
        return Architecture.model_validate(document)
    except ValidationError as error:
        raise InvalidInput([p.under(prefix) for p in problems_in(error, document)]) from error


def _print_space(space: dict[str, Any], as_json: bool) -> None:
    import yaml

    if as_json:
        print_json(space)
        return
    print_fields(
        [
            ("space", f"{space['name']}@{space['version']}"),
            ("kind", "causal" if space["causal"] else "encoder"),
            ("architectures", f"{int(space['size']):,}"),
            ("description", space["description"]),
        ]
    )
    said = {"name", "version", "causal", "description"}
    choices = {
        k: v for k, v in space["definition"].items() if k not in said and v not in (None, [])
    }
    typer.echo()
    typer.echo(
        yaml.safe_dump(choices, sort_keys=False, default_flow_style=None, width=100).rstrip()
    )


def _settings(defaults: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in defaults.items()) or "–"
