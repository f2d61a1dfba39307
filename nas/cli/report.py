"""`nas report`: the trust report of a job, to be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from nas.cli.connection import JobArgument, Url, connect, resolve
from nas.cli.output import Json, duration, print_fields, print_json, print_table
from nas.summary import short

if TYPE_CHECKING:
    from nas.reports import (
        CostTrust,
        RankAgreement,
        RungTrust,
        SeedSpread,
        TrustReport,
        VerifiedMember,
    )
    from nas.schemas import Interval

UNKNOWN = "–"


def report(job: JobArgument, url: Url = None, as_json: Json = False) -> None:
    """Say how far a job's numbers can be trusted, and where not."""
    with connect(url) as client:
        found = client.report(resolve(client, job))
    if as_json:
        print_json(found)
        return
    _warnings(found)
    _rungs(found)
    _costs(found.costs)
    _verification(found)
    _rest(found)


def _warnings(found: TrustReport) -> None:
    typer.echo(f"Trust report of {found.job} ({found.state}), by {found.metric}\n")
    if found.warnings:
        print_fields(("!", warning) for warning in found.warnings)
    else:
        typer.echo("nothing speaks against these numbers")


def _rungs(found: TrustReport) -> None:
    audits = found.audits
    typer.echo(
        f"\nHow rungs ranked what full fidelity confirmed: {audits.completed} of "
        f"{audits.drawn} audits got there"
    )
    print_table(
        ("steps", "trials", "n", "Spearman", "Kendall", "Spearman*", "Kendall*"),
        [row for rung in found.rungs for row in _rung(rung)],
        right=("steps", "n", "Spearman", "Kendall", "Spearman*", "Kendall*"),
        empty="there is one rung, which is full fidelity",
    )
    if found.rungs:
        typer.echo("* of what size does not explain; completed ones were chosen, so biased")


def _rung(rung: RungTrust) -> Iterable[tuple[str, ...]]:
    yield (f"{rung.steps}", "audited", *_ranks(rung.audited), *_ranks(rung.audited_beyond_size)[1:])
    completed = _ranks(rung.completed), _ranks(rung.completed_beyond_size)
    yield ("", "completed", *completed[0], *completed[1][1:])


def _ranks(ranks: RankAgreement) -> tuple[str, str, str]:
    few = " (too few)" if ranks.too_few else ""
    return f"{ranks.n}{few}", _number(ranks.spearman), _number(ranks.kendall)


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _costs(costs: list[CostTrust]) -> None:
    typer.echo("\nWhat was predicted before training, against its measurement")
    print_table(
        ("metric", "n", "error", "bias", "Kendall", "covered", "worst"),
        [
            (
                cost.metric,
                cost.n,
                f"{cost.error:.1%}",
                f"{cost.bias:+.1%}",
                _number(cost.ranks.kendall),
                UNKNOWN if cost.covered is None else f"{cost.covered:.0%}",
                f"{short(cost.metric, cost.worst.predicted)} was "
                f"{short(cost.metric, cost.worst.measured)} (nr {cost.worst.number})",
            )
            for cost in costs
        ],
        right=("n", "error", "bias", "Kendall", "covered"),
        fold=("worst",),
        empty="nothing was measured",
    )


def _verification(found: TrustReport) -> None:
    metric = found.metric
    typer.echo("\nMembers trained again with fresh seeds, 95 % intervals")
    print_table(
        ("nr", f"{metric} searched", "verified", "on the test split", "blocks"),
        [_member(member, metric) for member in found.members],
        right=("nr", f"{metric} searched"),
        empty="none",
    )
    pairs = found.neighbours
    print_fields(
        [
            *((f"spread of {s.metric}", _spread(s)) for s in found.spreads if s.sd != 0),
            (
                "neighbours",
                f"{pairs.alike} of {pairs.pairs} pairs cannot be told apart" if pairs.pairs else "",
            ),
            *((f"on {t.task['name']}", _task(t.ranks)) for t in found.tasks),
        ]
    )


def _member(member: VerifiedMember, metric: str) -> tuple[str, ...]:
    return (
        f"{member.number}",
        UNKNOWN if member.searched is None else short(metric, member.searched),
        _interval(member.verified, metric),
        UNKNOWN if member.tested is None else _interval(member.tested, metric),
        "the same" if member.homogeneous else "mixed",
    )


def _interval(interval: Interval, metric: str) -> str:
    mean = short(metric, interval.mean)
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} ({short(metric, interval.low)}–{short(metric, interval.high)})"


def _spread(spread: SeedSpread) -> str:
    if spread.sd is None:
        return "not known: nothing was repeated"
    size = f"{spread.sd:.1%}" if spread.relative else short(spread.metric, spread.sd)
    over = "rounds" if spread.relative else "seeds"
    return f"{size} over {over} ({spread.degrees_of_freedom} degrees of freedom)"


def _task(ranks: RankAgreement) -> str:
    n, spearman, kendall = _ranks(ranks)
    return f"rank correlation with this task: {spearman} Spearman, {kendall} Kendall, n {n}"


def _rest(found: TrustReport) -> None:
    time, reuse = found.time, found.reuse
    share = "" if time.share is None else f"{time.share:.0%} training"
    typer.echo()
    print_fields(
        [
            (
                "time",
                f"{share} ({duration(time.training_seconds)} training, "
                f"{duration(time.evaluation_seconds)} evaluation, {duration(time.idle_seconds)} "
                f"idle, in {time.slots} slots)"
                if share
                else "",
            ),
            (
                "reused",
                f"{reuse.reused} of {reuse.trials} trials were known from earlier jobs, "
                f"which saved {reuse.full_trainings:g} full trainings, {reuse.core_seconds:.0f} "
                "core-seconds",
            ),
            *((f"failed: {f.trials}", f.reason) for f in found.failures),
            *(("varies", words) for words in found.irreproducible),
        ]
    )
