"""The command that trains an exported configuration at full length."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import INTERRUPTED, configuration
from nas.cli.output import (
    Json,
    bad_input,
    console,
    duration,
    print_json,
    print_table,
)
from nas.summary import short

if TYPE_CHECKING:
    from nas.training.full import ProgressHook, TrainingOutcome, TrainingProgress

LINE_SECONDS = 10.0


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="An exported config.json.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="Your own data, where the task takes some."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="By default the full_steps of the configuration."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="By default trained/ beside the file."),
    ] = None,
    from_weights: Annotated[
        bool,
        typer.Option(
            "--from-weights/--from-scratch", help="Start from the trial's weights or not."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the folder, if any.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; by default PyTorch's own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an exported architecture at full length, and test it.

    The first Ctrl-C saves a checkpoint and stops; --resume goes on from it.
    """
    if not config.is_file():
        raise bad_input(f"the configuration {config} does not exist")
    if data is not None and not data.is_file():
        raise bad_input(f"the data {data} do not exist")
    folder = out or config.parent / "trained"
    if folder.exists() and not folder.is_dir():
        raise bad_input(f"{folder} is a file: -o takes a folder")
    settings = configuration.load()
    from nas.training.full import train_config

    with _stop_on_signal() as stopped, _display(quiet=as_json) as show:
        outcome = train_config(
            config,
            out=folder,
            cache=settings.cache,
            data=data,
            steps=steps,
            from_weights=from_weights,
            resume=resume,
            device=device,
            threads=threads,
            on_progress=show,
            should_stop=stopped.is_set,
        )
    if as_json:
        print_json(asdict(outcome) | {"folder": str(outcome.folder)})
    else:
        _print_outcome(outcome)
    if not outcome.finished:
        typer.echo(
            f"stopped at step {outcome.steps}; go on with the same command and --resume", err=True
        )
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as ever."""
    stopped = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        stopped.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _display(*, quiet: bool) -> Iterator[ProgressHook | None]:
    """A bar in a terminal, a line now and then elsewhere, on standard error."""
    err = console(stderr=True)
    if quiet:
        yield None
    elif not err.is_terminal:
        yield _line_printer()
    else:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err) as bar:
            line = bar.add_task("training", total=None, loss="")

            def show(progress: TrainingProgress) -> None:
                bar.update(
                    line,
                    total=progress.steps,
                    completed=progress.step,
                    loss=f"loss {short('loss', progress.loss)}",
                )

            yield show


def _line_printer() -> ProgressHook:
    shown = float("-inf")

    def show(progress: TrainingProgress) -> None:
        nonlocal shown
        if progress.seconds - shown >= LINE_SECONDS or progress.step == progress.steps:
            shown = progress.seconds
            typer.echo(
                f"step {progress.step} of {progress.steps}, training loss "
                f"{short('loss', progress.loss)}, {duration(progress.seconds)}",
                err=True,
            )

    return show


def _print_outcome(outcome: TrainingOutcome) -> None:
    columns = {
        "validation before": outcome.validation_before,
        "validation after": outcome.validation_after,
        "test": outcome.test,
    }
    shown = {label: values for label, values in columns.items() if values}
    names = dict.fromkeys(name for values in shown.values() for name in values)
    rows = [
        (name, *(short(name, v[name]) if name in v else "–" for v in shown.values()))
        for name in names
    ]
    print_table(("", *shown), rows, right=shown)
    other = "" if outcome.same_data else "; not the data that the architecture was searched on"
    typer.echo(f"{outcome.steps} steps in {duration(outcome.seconds)}{other}")
    if outcome.finished:
        typer.echo(f"model and metrics are in {outcome.folder}")
