"""The trust report in words: where its figures deserve no trust, and what another run may change.

Everything said here follows from the figures of the report itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

from nas.catalogue.metrics import METRICS
from nas.reports import CostTrust, RankAgreement, TaskTrust, TrustReport, VerifiedMember
from nas.schemas import JobRequest
from nas.search.trust import FEW
from nas.states import JobState
from nas.store.records import JobRecord

WEAK_AGREEMENT = 0.5
LARGE_ERROR = 0.1
MANY_FAILURES = 0.1
ENDED = {JobState.FAILED: "failed", JobState.CANCELLED: "been cancelled"}

Words: TypeAlias = Iterator[str]


def warnings(report: TrustReport, request: JobRequest, *, timed_alone: bool) -> list[str]:
    """Where the report's figures say that something deserves no trust.

    timed_alone: whether nothing else ran while verified members were timed side by side.
    """
    found: list[str] = []
    if not report.state.final:
        found.append(f"The job is {report.state}: all figures are of what there is so far.")
    found += _of_rungs(report, request)
    found += _of_verification(report, request)
    for cost in report.costs:
        found += _of_cost(cost)
    if not timed_alone:
        found.append(
            "Verified members were timed beside other work: their latencies may be too high."
        )
    for task in report.tasks:
        found += _of_task(task)
    found += _of_failures(report)
    return found


def irreproducible(job: JobRecord, request: JobRequest) -> list[str]:
    """What the seed of a job does not fix."""
    found = []
    if request.resources.trials_at_once > 1:
        found.append(
            "Trials ran side by side: the seed does not fix the order in which they end, and what "
            "is proposed or promoted next may depend on it."
        )
    if request.budget.wall_seconds is not None or request.budget.energy_kwh is not None:
        found.append("The budget is one of time or energy: a faster machine gets further with it.")
    if request.resources.gpus:
        found.append("On a GPU sums may be taken in any order: losses can differ from run to run.")
    if request.reuse:
        found.append("Results of earlier jobs are reused: which there are depends on the database.")
    if job.device is not None:
        found.append(f"Latencies are of {job.device} and of what else it did meanwhile.")
    return found


def _of_rungs(report: TrustReport, request: JobRequest) -> Words:
    if not report.rungs:
        return
    audits = report.audits
    if not request.fidelity.audit:
        yield (
            "No trial was audited (fidelity.audit is 0): whether low rungs rank well is known only "
            "of the trials that they chose themselves."
        )
    elif audits.completed < FEW:
        yield (
            f"{audits.completed} of {audits.drawn} trials drawn for the audit reached full "
            f"fidelity: fewer than {FEW} tell little of how well low rungs rank. A larger "
            "fidelity.audit or budget would give more."
        )
    for rung in report.rungs:
        pairs = (
            ("", rung.audited),
            (" once size is taken out", rung.audited_beyond_size),
        )
        for beyond, ranks in pairs:
            if _weak(ranks):
                yield (
                    f"After {rung.steps} steps the {report.metric} of audited trials ranked "
                    f"them{beyond} with a correlation of only {ranks.spearman:.2f} to full "
                    f"fidelity: good trials may have been stopped there."
                )


def _weak(ranks: RankAgreement) -> bool:
    return not ranks.too_few and ranks.spearman is not None and ranks.spearman < WEAK_AGREEMENT


def _of_verification(report: TrustReport, request: JobRequest) -> Words:
    wanted = request.verification
    if not report.members:
        if not wanted.seeds or not wanted.members:
            yield "Nothing was verified, as the job asks: the front may owe something to luck."
        elif report.state == JobState.SUCCEEDED:
            yield (
                "Nothing was verified: there was no front, its trainings failed, or none could be "
                f"had for {wanted.share:.0%} of what the search has cost (verification.share)."
            )
        elif report.state.final:
            yield f"Nothing was verified: the job had {ENDED[report.state]} before."
        return
    pairs, alike = report.neighbours.pairs, report.neighbours.alike
    if pairs and 2 * alike >= pairs:
        yield (
            f"{alike} of {pairs} pairs of neighbouring members differ less in {report.metric} than "
            "fresh seeds do: their order means nothing."
        )
    if all(member.verified.low is None for member in report.members):
        yield "No member was trained with more than one fresh seed: the spread is not known."
    flattered = [m for m in report.members if _flattered(m, report.metric)]
    if flattered:
        yield (
            f"{len(flattered)} of {len(report.members)} verified members did worse with fresh "
            "seeds than in the search, by more than seeds differ: there they were lucky."
        )


def _flattered(member: VerifiedMember, metric: str) -> bool:
    """Whether the search's own seed gave more than the interval of one more seed allows."""
    found, again = member.searched, member.verified
    if found is None or again.high is None:
        return False
    # the interval is of a mean of n: that of a single value is √(n + 1) times as wide
    margin = (again.high - again.mean) * math.sqrt(again.n + 1)
    better = found - again.mean if METRICS[metric].direction == "maximize" else again.mean - found
    return better > margin


def _of_cost(cost: CostTrust) -> Words:
    if cost.error > LARGE_ERROR:
        yield (
            f"{cost.metric} was predicted with a mean error of {cost.error:.0%} ({cost.n} "
            "measured): while searching, that prediction stood for it."
        )
    if not cost.alone:
        yield f"{cost.metric} was measured beside other work: some of it may be too high."


def _of_task(task: TaskTrust) -> Words:
    name, ranks = task.task["name"], task.ranks
    if ranks.too_few:
        yield (
            f"Members trained on {name} as well: {ranks.n}. Fewer than {FEW} tell little of "
            "whether it ranks them alike."
        )
    elif _weak(ranks):
        yield (
            f"On {name} the members rank otherwise (correlation {ranks.spearman:.2f}): what was "
            "found holds for the task that was searched."
        )


def _of_failures(report: TrustReport) -> Words:
    failed, tried = sum(f.trials for f in report.failures), report.reuse.trials
    if failed > MANY_FAILURES * tried:
        yield f"{failed} of {tried} trials failed: what they would have found is missing."
