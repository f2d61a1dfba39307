"""A job while it runs: a live view in a terminal, plain lines elsewhere, or its events as JSON."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.output import DONE, FAILED, console, duration, print_json, state_text
from nas.errors import NasError
from nas.states import JobState, TrialState
from nas.summary import short

if TYPE_CHECKING:
    from nas.client import Client
    from nas.schemas import Job

REFRESH_SECONDS = 2.0
"""At least so often a job is looked at; sooner when an event tells of a change."""
CALM_SECONDS = 0.4
"""No more often than this."""
LINE_SECONDS = 3.0
PATIENCE_SECONDS = 30.0
"""How long a watcher waits for a service that does not answer, as while it restarts."""
BAR = 24


def follow(client: Client, job_id: str, *, as_json: bool) -> int:
    """Show a job until it ends; the exit code says whether it succeeded."""
    if as_json:
        return _events(client, job_id)
    job = _live(client, job_id) if console().is_terminal else _lines(client, job_id)
    if job.state == JobState.SUCCEEDED:
        return DONE
    typer.echo(f"error: job {job.id} {job.state}: {job.error or 'on request'}", err=True)
    return FAILED


def _events(client: Client, job_id: str) -> int:
    for event in client.events(job_id):
        print_json(event, indent=None)
    return DONE if client.job(job_id).state == JobState.SUCCEEDED else FAILED


def _live(client: Client, job_id: str) -> Job:
    from rich.live import Live

    out = console()
    with Live(console=out, refresh_per_second=4, transient=False) as live:
        for job in _updates(client, job_id):
            live.update(view(job))
    return job


def _lines(client: Client, job_id: str) -> Job:
    shown: tuple[Any, ...] = ()
    last = 0.0
    for job in _updates(client, job_id):
        now = time.monotonic()
        notable = _notable(job)
        changed = notable != shown and now - last >= LINE_SECONDS
        if changed or job.state.final or shown[:2] != notable[:2]:
            typer.echo(line(job))
            shown, last = notable, now
    return job


def _updates(client: Client, job_id: str) -> Iterator[Job]:
    """The job whenever an event tells that it changed, and every few seconds anyway."""
    from nas.client import ServiceUnreachable

    job = client.job(job_id)
    yield job
    if job.state.final:
        return
    news = threading.Event()
    threading.Thread(target=_listen, args=(client.url, job_id, news), daemon=True).start()
    lost_since: float | None = None
    while not job.state.final:
        news.wait(REFRESH_SECONDS)
        news.clear()
        try:
            job = client.job(job_id)
            lost_since = None
        except ServiceUnreachable:
            now = time.monotonic()
            lost_since = lost_since or now
            if now - lost_since > PATIENCE_SECONDS:
                raise
        yield job
        if not job.state.final:
            time.sleep(CALM_SECONDS)


def _listen(url: str, job_id: str, news: threading.Event) -> None:
    """Tell of a job's events until its end, by a client that nobody closes at its back."""
    from nas.client import Client

    try:
        with Client(url) as client:
            for _ in client.events(job_id):
                news.set()
    except NasError:
        # the watcher looks every few seconds anyway, and it is the one that complains
        return


def _notable(job: Job) -> tuple[Any, ...]:
    progress = job.progress
    return (job.state, progress.phase, tuple(progress.rung_counts), tuple(progress.best.items()))


def line(job: Job) -> str:
    """Where a job stands, in one line."""
    progress = job.progress
    trials = ", ".join(_trial_counts(job))
    best = ", ".join(f"{name} {short(name, value)}" for name, value in progress.best.items())
    parts = [
        f"{duration(progress.elapsed_seconds):>11}",
        f"{job.state} ({phase})" if (phase := _phase(job)) else str(job.state),
        f"{progress.fraction:4.0%}",
        trials,
        f"best: {best}" if best else "",
        _left(job),
    ]
    return "  ".join(part for part in parts if part)


def view(job: Job) -> Any:
    """Where a job stands, as a block for the terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    progress = job.progress
    head = Text.assemble((job.name, "bold"), "  ", (job.id, "dim"), "  ", state_text(job.state))
    if phase := _phase(job):
        head.append(f" · {phase}")
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=1.0, completed=progress.fraction, width=2 * BAR),
        Text(f"{progress.fraction:.0%}"),
        Text(duration(progress.elapsed_seconds), style="bold"),
        Text(_left(job), style="dim"),
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("trials", Text(" · ".join(_trial_counts(job)) or "none yet"))
    most = max([*progress.rung_counts, 1])
    for steps, count in zip(progress.rung_steps, progress.rung_counts, strict=True):
        filled = round(BAR * count / most)
        grid.add_row(f"{steps} steps", Text.assemble(("█" * filled, "cyan"), f" {count}"))
    for name, value in progress.best.items():
        grid.add_row(f"best {name}", Text(short(name, value)))
    grid.add_row("spent", Text(_spent(job)))
    return Group(head, bar, grid)


def _phase(job: Job) -> str:
    """What a running job is at; elsewhere the state says all."""
    return job.progress.phase if job.state == JobState.RUNNING else ""


def _trial_counts(job: Job) -> list[str]:
    counts = job.progress.trials
    return [f"{counts[state]} {state}" for state in TrialState if counts.get(state)]


def _left(job: Job) -> str:
    eta = job.progress.eta_seconds
    return f"about {duration(eta)} left" if eta is not None and not job.state.final else ""


def _spent(job: Job) -> str:
    """What the job has used, each beside its bound if it has one."""
    budget: dict[str, Any] = job.request.get("budget", {})
    progress, bill = job.progress, job.bill
    counted = sum(n for state, n in progress.trials.items() if state != TrialState.REUSED)

    def of(bound: str, value: str, limit: str = "{}") -> str:
        most = budget.get(bound)
        return f"{value} of {limit.format(most)}" if most is not None else value

    parts = [
        of("trials", f"{counted}") + " trials",
        of("full_trainings", f"{progress.spent:.1f}", "{:g}") + " full trainings",
        f"{duration(bill.core_seconds)} of cores",
        of("energy_kwh", f"{bill.energy_kwh:.2g}", "{:g}")
        + f" kWh{' (estimated)' if bill.energy_source == 'estimated' else ''}",
    ]
    if (wall := budget.get("wall_seconds")) is not None:
        parts.append(f"{duration(progress.elapsed_seconds)} of {duration(wall)}")
    return " · ".join(parts)
