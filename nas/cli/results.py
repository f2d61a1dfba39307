"""Commands on what a job has found: trials, pareto, export."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.connection import JobArgument, Url, connect, resolve, resolve_trial
from nas.cli.output import Json, bad_input, console, print_json, print_table, state_text
from nas.errors import NasError
from nas.states import ExportState, TrialState
from nas.summary import one_line, short

if TYPE_CHECKING:
    from nas.client import Client
    from nas.schemas import Export, Front, Job, Trial

POLL_SECONDS = 0.5
UNCLAIMED_SECONDS = 15.0
"""After this an export that no worker took is worth a word."""
WIDE = 120
"""From so many columns on, tables have room for ids."""

Bounds = dict[str, float]


class ExportFailed(NasError):
    """The service could not make the bundle."""


def trials(
    job: JobArgument,
    state: Annotated[
        TrialState | None, typer.Option("--state", help="Only trials in this state.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="KEY", help="number or a metric; - for falling.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List a job's trials."""
    with connect(url) as client:
        job_id = resolve(client, job)
        page = min(limit + 1, 1000)
        found = list(islice(client.trials(job_id, state=state, sort=sort, limit=page), limit + 1))
        objectives = [] if as_json else list(client.job(job_id).request["objectives"])
    more, found = len(found) > limit, found[:limit]
    if as_json:
        print_json({"items": found, "more": more})
        return
    wide = console().width >= WIDE
    print_table(
        ("nr", *(("trial",) if wide else ()), "state", "fidelity", *objectives, "architecture"),
        [
            (
                t.number,
                *((t.id,) if wide else ()),
                state_text(t.state),
                f"{t.fidelity:.0%}",
                *_values(t, objectives),
                t.error or one_line(t.architecture),
            )
            for t in found
        ],
        right=("nr", "fidelity", *objectives),
        fold=("architecture",),
        empty="no trials",
    )
    if more:
        typer.echo(f"the first {limit}; see more with --limit")


def pareto(
    job: JobArgument,
    objectives: Annotated[
        str | None,
        typer.Option("--objectives", metavar="A,B", help="By default the job's own objectives."),
    ] = None,
    most: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="METRIC=VALUE", help="An upper bound; may be repeated."),
    ] = None,
    least: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="METRIC=VALUE", help="A lower bound; may be repeated."),
    ] = None,
    verified: Annotated[
        bool, typer.Option("--verified", help="Only trials confirmed with fresh seeds.")
    ] = False,
    fidelity: Annotated[
        str | None,
        typer.Option("--fidelity", metavar="full|any", help="any also ranks unfinished training."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw it, as .png, .svg or .html."),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show a job's Pareto front, and draw it."""
    upper, lower = _bounds("--max", most or ()), _bounds("--min", least or ())
    if plot:
        _check_plot(plot)
    names = [name.strip() for name in objectives.split(",")] if objectives else None
    with connect(url) as client:
        job_id = resolve(client, job)
        front = client.pareto(
            job_id,
            objectives=names,
            max=upper,
            min=lower,
            fidelity=fidelity,
            verified=verified or None,
        )
        if plot:
            _draw(client, job_id, front, plot, upper, lower)
    if as_json:
        print_json(front)
    else:
        _print_front(front)
    if plot:
        typer.echo(f"plot: {plot}", err=as_json)


def export(
    job: JobArgument,
    trial: Annotated[
        str,
        typer.Option(
            "--trial", metavar="TRIAL", help="A trial's id or number, knee, or best:METRIC."
        ),
    ] = "knee",
    format_name: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="config, huggingface.")
    ] = "config",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to put it into.")
    ] = Path("export"),
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Fetch a trial: a configuration to train on with its weights, or a folder for transformers."""
    from nas.export import unpack

    if out.exists() and not out.is_dir():
        raise bad_input(f"{out} is a file: -o takes a folder")
    with connect(url) as client:
        job_id = resolve(client, job)
        requested = client.export(job_id, resolve_trial(client, job_id, trial), format_name)
        ready = _wait(client, requested)
        with tempfile.TemporaryDirectory(prefix="nas-export-") as folder:
            archive = client.download_export(ready.id, Path(folder, "export.zip"))
            config = unpack(archive, out, ready.format)
    files = sorted(path.name for path in out.iterdir() if path.is_file())
    if as_json:
        print_json({"export": ready, "folder": str(out), "config": str(config), "files": files})
        return
    if ready.format == "huggingface":
        typer.echo(f"trial {ready.trial}: {len(files)} files in {out}")
        typer.echo(f"how to load, fine-tune and run it: {out / 'README.md'}")
        return
    typer.echo(f"trial {ready.trial}: {', '.join(files)} in {out}")
    typer.echo(f"train it with: nas train {config}{_own_data(config)}")


def _own_data(config: Path) -> str:
    """What to add to a `nas train`, which knows no service, for data that were uploaded to one."""
    from nas.export import read_config

    uploaded = read_config(config).task.uploaded
    if uploaded is None:
        return ""
    return f" --data FILE\nFILE is what was uploaded as {uploaded}"


def _wait(client: Client, export: Export) -> Export:
    """The export once it is there.

    Raises:
        ExportFailed: it cannot be made.
    """
    err = console(stderr=True)
    warn_at: float | None = time.monotonic() + UNCLAIMED_SECONDS
    with err.status("waiting for a worker to make the export") as status:
        while export.state not in (ExportState.SUCCEEDED, ExportState.FAILED):
            time.sleep(POLL_SECONDS)
            export = client.export_state(export.id)
            status.update(f"export {export.id} is {export.state}")
            unclaimed = export.state == ExportState.QUEUED
            if unclaimed and warn_at is not None and time.monotonic() > warn_at:
                err.print("no worker has taken the export yet: is one running (`nas worker`)?")
                warn_at = None
    if export.state == ExportState.FAILED:
        raise ExportFailed(f"export {export.id} failed: {export.error}")
    return export


def _bounds(option: str, given: Sequence[str]) -> Bounds:
    bounds: Bounds = {}
    for text in given:
        metric, _, number = text.partition("=")
        try:
            bounds[metric.strip()] = float(number)
        except ValueError:
            raise bad_input(f"{option} {text}: write METRIC=NUMBER, as latency_ms=5") from None
    return bounds


def _check_plot(path: Path) -> None:
    try:
        from nas.plot import check_format
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise bad_input("plots need matplotlib: pip install 'paretoformer[worker]'") from error
    check_format(path)
    if not path.parent.is_dir():
        raise bad_input(f"the folder {path.parent} does not exist")


def _draw(
    client: Client, job_id: str, front: Front, path: Path, upper: Bounds, lower: Bounds
) -> None:
    from nas.plot import draw_front

    job = client.job(job_id)
    highest, lowest = _limits(job, upper, lower)

    def feasible(trial: Trial) -> bool:
        values = trial.metrics
        return all(values.get(m, bound) <= bound for m, bound in highest) and all(
            values.get(m, bound) >= bound for m, bound in lowest
        )

    everything = client.trials(job_id, limit=1000)
    draw_front(path, job=job, front=front, trials=everything, feasible=feasible)


def _limits(
    job: Job, upper: Bounds, lower: Bounds
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """All bounds that the front was under: the job's constraints and those given here."""
    own: list[dict[str, Any]] = job.request.get("constraints", [])
    highest = [(c["metric"], c["max"]) for c in own if c.get("max") is not None]
    lowest = [(c["metric"], c["min"]) for c in own if c.get("min") is not None]
    return [*highest, *upper.items()], [*lowest, *lower.items()]


def _print_front(front: Front) -> None:
    wide = console().width >= WIDE
    partial = any(t.fidelity < 1 for t in front.items)
    confirmed = any(t.verified for t in front.items)
    extra = (*(("fidelity",) if partial else ()), *(("verified loss",) if confirmed else ()))

    def row(trial: Trial) -> tuple[Any, ...]:
        return (
            "◆" if trial.id == front.knee else "",
            trial.number,
            *((trial.id,) if wide else ()),
            *_values(trial, front.objectives),
            *((f"{trial.fidelity:.0%}",) if partial else ()),
            *((_interval(trial),) if confirmed else ()),
            one_line(trial.architecture),
        )

    headers = ("", "nr", *(("trial",) if wide else ()), *front.objectives, *extra, "architecture")
    columns = {"right": ("nr", *front.objectives), "fold": ("architecture",)}
    print_table(
        headers,
        map(row, front.items),
        empty="the front is empty: no trial within the bounds has finished its training",
        **columns,  # type: ignore[arg-type]
    )
    if front.homogeneous:
        typer.echo()
        print_table(
            headers,
            map(row, front.homogeneous),
            title="The best with the same block in every layer, to compare",
            **columns,  # type: ignore[arg-type]
        )
    knee = "◆ knee, " if front.knee else ""
    typer.echo(f"\n{knee}hypervolume {front.hypervolume:.4f}")


def _values(trial: Trial, metrics: Sequence[str]) -> list[str]:
    return [short(m, trial.metrics[m]) if m in trial.metrics else "–" for m in metrics]


def _interval(trial: Trial) -> str:
    """Mean over fresh seeds and its interval, where there is one."""
    seeds = (trial.verified or {}).get("loss")
    if seeds is None:
        return ""
    mean = short("loss", seeds.mean)
    if seeds.low is None or seeds.high is None:
        return mean
    return f"{mean} ({short('loss', seeds.low)}–{short('loss', seeds.high)})"
