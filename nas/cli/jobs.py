"""Commands on jobs: submit, list, show, watch, cancel, pause, resume, delete."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.connection import JobArgument, Onlooker, Url, command, connect, resolve
from nas.cli.output import (
    Json,
    ago,
    bad_input,
    console,
    duration,
    print_fields,
    print_json,
    print_table,
    state_text,
)
from nas.states import EndedBy, JobState
from nas.summary import short

if TYPE_CHECKING:
    from nas.client import Client
    from nas.schemas import Job


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The job as YAML or JSON; - reads it from stdin.")
    ],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the job until it ends.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit a search job.

    With --watch --json the first line is the job, and each further line an event.
    """
    from nas.cli.progress import follow

    with connect(url) as client:
        with _job_file(file) as path:
            job = client.submit(path)
        if as_json:
            print_json(job, indent=None if watch else 2)
        else:
            typer.echo(f"job {job.id} ({job.name}) is {job.state}")
        if watch:
            with Onlooker(job.id):
                raise typer.Exit(follow(client, job.id, as_json=as_json))
        if not as_json:
            typer.echo(f"watch it with: {command(f'watch {job.id}')}")


def list_jobs(
    state: Annotated[
        JobState | None, typer.Option("--state", help="Only jobs in this state.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with connect(url) as client:
        jobs = list(islice(client.jobs(state=state), limit + 1))
    more, jobs = len(jobs) > limit, jobs[:limit]
    if as_json:
        print_json({"items": jobs, "more": more})
        return
    print_table(
        ("job", "name", "state", "done", "trials", "task", "time", "submitted"),
        [
            (
                job.id,
                job.name,
                state_text(job.state),
                f"{job.progress.fraction:.0%}",
                sum(job.progress.trials.values()),
                job.request["task"]["name"],
                duration(job.progress.elapsed_seconds),
                ago(job.created_at),
            )
            for job in jobs
        ],
        right=("done", "trials"),
        fold=("name", "task", "submitted", "time"),
        empty="no jobs",
    )
    if more:
        typer.echo(f"the newest {limit}; see more with --limit")


def show(job: JobArgument, url: Url = None, as_json: Json = False) -> None:
    """Show one job: where it stands, what it was asked, what it has cost."""
    from nas.cli.progress import view

    with connect(url) as client:
        found = client.job(resolve(client, job))
    if as_json:
        print_json(found)
        return
    console().print(view(found))
    typer.echo()
    print_fields(_fields(found))


def watch(job: JobArgument, url: Url = None, as_json: Json = False) -> None:
    """Show a job live until it ends.

    With --json each event is a line, from the first one on.
    """
    with Onlooker(job) as onlooker:
        from nas.cli.progress import follow

        with connect(url) as client:
            onlooker.job = resolve(client, job)
            raise typer.Exit(follow(client, onlooker.job, as_json=as_json))


def cancel(job: JobArgument, url: Url = None, as_json: Json = False) -> None:
    """Stop a job for good; what it has found stays."""
    _act(lambda client, job_id: client.cancel(job_id), job, url, as_json)


def pause(job: JobArgument, url: Url = None, as_json: Json = False) -> None:
    """Let a job stand still until it is resumed."""
    _act(lambda client, job_id: client.pause(job_id), job, url, as_json)


def resume(job: JobArgument, url: Url = None, as_json: Json = False) -> None:
    """Let a paused job go on."""
    _act(lambda client, job_id: client.resume(job_id), job, url, as_json)


def delete(
    job: JobArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Remove a job that has ended, with its trials and exports."""
    with connect(url) as client:
        job_id = resolve(client, job)
        if not yes:
            if not sys.stdin.isatty():
                raise bad_input(f"deleting {job_id} takes its results with it: confirm with --yes")
            typer.confirm(f"Delete {job_id} with its trials and exports?", abort=True, err=True)
        client.delete(job_id)
    if as_json:
        print_json({"deleted": job_id})
    else:
        typer.echo(f"job {job_id} is deleted")


def _act(action: Callable[[Client, str], Job], job: str, url: str | None, as_json: bool) -> None:
    with connect(url) as client:
        changed = action(client, resolve(client, job))
    if as_json:
        print_json(changed)
    else:
        typer.echo(f"job {changed.id} is {changed.state}")


@contextmanager
def _job_file(file: Path) -> Iterator[Path]:
    """The file of a job, be it standard input.

    Raises:
        InvalidInput: it cannot be read.
    """
    if str(file) != "-":
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "does not exist"
            raise bad_input(f"the job file {file} {what}")
        yield file
        return
    text = sys.stdin.read()
    with tempfile.TemporaryDirectory(prefix="nas-submit-") as folder:
        path = Path(folder, "job.json" if _is_json(text) else "job.yaml")
        path.write_text(text, encoding="utf-8")
        yield path


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _fields(job: Job) -> list[tuple[str, Any]]:
    request, bill = job.request, job.bill
    task = dict(request["task"])
    bounds = [_bound(c) for c in request.get("constraints", ())]
    money = f", {bill.money:.2f} {bill.currency}" if bill.money else ""
    return [
        ("task", f"{task.pop('name')}" + "".join(f", {k} {v}" for k, v in task.items())),
        ("space", job.space),
        ("objectives", ", ".join(request.get("objectives", ()))),
        ("constraints", ", ".join(bounds)),
        ("strategy", request.get("strategy", {}).get("name")),
        ("project", job.project),
        ("submitted", f"{job.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("ended", job.finished_at and f"{job.finished_at:%Y-%m-%d %H:%M:%S} UTC"),
        (
            "bill",
            f"{bill.core_seconds:.0f} core-seconds ({bill.verification_core_seconds:.0f} of them "
            f"verification), {bill.energy_kwh:.2g} kWh {bill.energy_source}, "
            f"{bill.co2_kg:.2g} kg CO₂{money}",
        ),
        ("search", _ending(job)),
        ("error", job.error),
        ("trust", f"see {command(f'report {job.id}')}" if job.state.final else None),
    ]


def _ending(job: Job) -> str | None:
    ended_by = job.progress.ended_by
    if ended_by is EndedBy.SPACE:
        return "asks for nothing new: none is left in the space"
    return ended_by and f"asks for nothing new: budget.{ended_by} is met"


def _bound(constraint: dict[str, Any]) -> str:
    low, high = constraint.get("min"), constraint.get("max")
    metric = constraint["metric"]
    left = f"{short(metric, low)} ≤ " if low is not None else ""
    right = f" ≤ {short(metric, high)}" if high is not None else ""
    return f"{left}{metric}{right}"
