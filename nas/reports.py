"""The trust report of a job as it crosses the border: what its numbers are worth, and why."""

from __future__ import annotations

from typing import Any

from nas.schemas import Interval, Response
from nas.states import JobState


class RankAgreement(Response):
    """Rank correlations of n pairs: Kendall's tau-b and Spearman's rho, null where undefined.

    ``too_few``: of fewer than 10 pairs they say next to nothing.
    """

    n: int
    kendall: float | None
    spearman: float | None
    too_few: bool


class RungTrust(Response):
    """How well a rung ranked what full fidelity confirmed, in the metric of the report.

    ``audited``: of trials drawn at random and taken to full fidelity whatever their rank.
    ``completed``: of all that got there; most were chosen by the rung itself, so it is biased.
    ``beyond_size``: of what is left when a linear fit on log non-embedding parameters is taken out
    of both, since size alone may rank well.
    """

    rung: int
    steps: int
    audited: RankAgreement
    audited_beyond_size: RankAgreement
    completed: RankAgreement
    completed_beyond_size: RankAgreement


class Audits(Response):
    """Trials drawn for the audit: the share that was asked for, how many were, and got there."""

    share: float
    drawn: int
    completed: int


class CostError(Response):
    """The trial whose cost was predicted worst."""

    trial: str
    number: int
    predicted: float
    measured: float


class CostTrust(Response):
    """A cost as it was predicted before training, against its measurement at the end.

    ``error`` is the mean absolute and ``bias`` the mean signed relative error, in parts of what was
    measured.  ``covered``: the part of the measurements within the predicted interval, null where
    there was none.  ``alone``: whether nothing else ran on the machine during any of them.
    """

    metric: str
    n: int
    error: float
    bias: float
    ranks: RankAgreement
    worst: CostError
    covered: float | None
    alone: bool


class SeedSpread(Response):
    """The standard deviation over fresh seeds, pooled over the verified members.

    ``relative``: in parts of the value (of latency, over rounds).  null where nothing was repeated.
    """

    metric: str
    sd: float | None
    relative: bool
    degrees_of_freedom: int


class VerifiedMember(Response):
    """A verified trial: what the search found, and what fresh seeds gave, in the report's metric.

    ``verified`` is on the validation split, ``tested`` on the test split.
    """

    trial: str
    number: int
    homogeneous: bool
    searched: float | None
    verified: Interval
    tested: Interval | None


class Neighbours(Response):
    """Verified members next to each other by the metric; ``alike``: closer than their interval."""

    pairs: int
    alike: int


class TaskTrust(Response):
    """Whether another task ranks the verified members as the job's own does."""

    task: dict[str, Any]
    metric: str
    ranks: RankAgreement


class TimeShare(Response):
    """Where the time of the search's slots went, in seconds; ``share`` is that of training.

    Slots are those that were asked for; what failed or was interrupted counts as idle.
    """

    slots: int
    training_seconds: float
    evaluation_seconds: float
    idle_seconds: float
    share: float | None


class Reuse(Response):
    """Trials in all, those of them that an earlier job had trained, and what that has saved.

    ``full_trainings``: as many need not be paid.  ``core_seconds``: what they had cost, as far as
    the jobs that trained them are still there.
    """

    trials: int
    reused: int
    full_trainings: float
    core_seconds: float


class FailureCount(Response):
    """How many trials failed for one reason."""

    reason: str
    trials: int


class TrustReport(Response):
    """What a job's numbers are worth. ``warnings`` says in words where not to trust them.

    ``metric`` is the quality that rungs are judged by.  ``irreproducible``: what another run with
    the same seed may give otherwise.
    """

    job: str
    state: JobState
    metric: str
    warnings: list[str]
    audits: Audits
    rungs: list[RungTrust]
    costs: list[CostTrust]
    spreads: list[SeedSpread]
    members: list[VerifiedMember]
    neighbours: Neighbours
    tasks: list[TaskTrust]
    time: TimeShare
    reuse: Reuse
    failures: list[FailureCount]
    irreproducible: list[str]
