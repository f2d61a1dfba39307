"""What commands print: tables for people, JSON for programs, and errors with their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from nas.cli import INTERRUPTED
from nas.errors import Conflict, DataUnavailable, NasError, NotFound, Unsupported
from search_spaces.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from rich.console import Console

    from nas.schemas import ErrorItem, ProblemDocument

DONE, FAILED, BAD_INPUT = 0, 1, 2
OUR_INPUT_IS_WRONG = (InvalidInput, NotFound, Conflict, Unsupported, DataUnavailable)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text for people.")
]

STATE_STYLES = {
    "succeeded": "green",
    "completed": "green",
    "reused": "green",
    "running": "cyan",
    "paused": "yellow",
    "cancelling": "yellow",
    "cancelled": "yellow",
    "stopped": "dim",
    "queued": "dim",
    "waiting": "dim",
    "failed": "red",
}


class Commands(TyperGroup):
    """The root of all commands: the only place where an error becomes an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; expected errors end in one message and their exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(INTERRUPTED) from interrupt
        except BrokenPipeError:
            raise
        except (NasError, InvalidInput, OSError) as error:
            report(error)
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: Exception) -> int:
    """2 when what was given cannot be used, else 1."""
    problem: ProblemDocument | None = getattr(error, "problem", None)
    if problem is not None:
        return BAD_INPUT if 400 <= problem.status < 500 else FAILED
    return BAD_INPUT if isinstance(error, OUR_INPUT_IS_WRONG) else FAILED


def report(error: Exception) -> None:
    """Say on standard error what was wrong, where, what is allowed and what to do next."""
    faults: Sequence[Problem | ErrorItem] = getattr(error, "problems", ())
    problem: ProblemDocument | None = getattr(error, "problem", None)
    said = str(error) or type(error).__name__
    if problem is not None:
        faults = problem.errors
        said = problem.title if faults else problem.detail
    elif len(faults) == 1:
        said, faults = _fault(faults[0]), ()
    elif faults:
        said = f"{len(faults)} things cannot be used"
    typer.echo("\n  ".join([f"error: {said}", *map(_fault, faults)]), err=True)


def _fault(fault: Problem | ErrorItem) -> str:
    where = f"{fault.pointer}: " if fault.pointer else ""
    allowed = f"\n    allowed: {', '.join(fault.allowed)}" if fault.allowed else ""
    return f"{where}{fault.message}{allowed}"


def bad_input(message: str, *, allowed: Iterable[str] = (), pointer: str = "") -> InvalidInput:
    """An error about one thing that was given."""
    return InvalidInput([Problem(pointer, message, tuple(allowed))])


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """One JSON document; models are dumped, and so are lists and dicts of them."""
    text = json.dumps(_plain(document), indent=indent, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: what comes from outside is never markup."""
    from rich.console import Console

    out = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not out.is_terminal and "COLUMNS" not in out._environ:
        out.width = 160  # nobody's window: rather long lines than cut ones
    return out


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    right: Iterable[str] = (),
    fold: Iterable[str] = (),
    empty: str = "nothing",
) -> None:
    """A table that fits the terminal: columns in ``fold`` wrap, all others stay on one line.

    right: the columns of numbers.  empty: what to say when there is no row.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=title or None,
        title_justify="left",
    )
    right, fold = set(right), set(fold)
    for header in headers:
        table.add_column(
            header,
            justify="right" if header in right else "left",
            no_wrap=header not in fold,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        typer.echo(empty)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line; what is None or empty is left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        if value is not None and value != "":
            grid.add_row(Text(name), value if isinstance(value, Text) else Text(str(value)))
    console().print(grid)


def state_text(state: str) -> Any:
    """A state in its colour."""
    from rich.text import Text

    return Text(str(state), style=STATE_STYLES.get(str(state), ""))


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``8 s``, ``2 min 05 s``, ``1 h 04 min``, ``3 d 02 h``."""
    if seconds is None:
        return ""
    whole = round(seconds)
    for size, unit, part, smaller in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {smaller}"
    return f"{whole} s"


def ago(moment: datetime) -> str:
    """How long ago a moment was."""
    return f"{duration(max(0.0, (datetime.now(UTC) - moment).total_seconds()))} ago"


def byte_count(size: int) -> str:
    """Bytes in decimal units: ``812 B``, ``1.2 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
