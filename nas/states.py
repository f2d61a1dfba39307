"""States of jobs, trials and exports, and the one table of legal transitions of each."""

from __future__ import annotations

from enum import StrEnum

from nas.errors import Conflict


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not JOB_TRANSITIONS[self]


class TrialState(StrEnum):
    """Where a trial stands: ``paused`` at a rung may still be promoted, ``stopped`` may not."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    REUSED = "reused"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not TRIAL_TRANSITIONS[self]


class EndedBy(StrEnum):
    """Why a job asks for no new trial: a bound of its budget, or nothing left in the space."""

    TRIALS = "trials"
    WALL_SECONDS = "wall_seconds"
    FULL_TRAININGS = "full_trainings"
    ENERGY_KWH = "energy_kwh"
    TOLERANCE = "tolerance"
    SPACE = "space"


class ExportState(StrEnum):
    """Where a requested export stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    # back to queued: its worker is gone or drained, and another is to go on
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
}

TRIAL_TRANSITIONS: dict[TrialState, frozenset[TrialState]] = {
    TrialState.WAITING: frozenset(
        {TrialState.RUNNING, TrialState.REUSED, TrialState.STOPPED, TrialState.FAILED}
    ),
    # back to waiting or paused: its segment was interrupted and will be run again
    TrialState.RUNNING: frozenset(
        {
            TrialState.WAITING,
            TrialState.PAUSED,
            TrialState.STOPPED,
            TrialState.COMPLETED,
            TrialState.FAILED,
        }
    ),
    TrialState.PAUSED: frozenset({TrialState.RUNNING, TrialState.STOPPED, TrialState.FAILED}),
    TrialState.STOPPED: frozenset(),
    TrialState.COMPLETED: frozenset(),
    TrialState.REUSED: frozenset(),
    TrialState.FAILED: frozenset(),
}

EXPORT_TRANSITIONS: dict[ExportState, frozenset[ExportState]] = {
    ExportState.QUEUED: frozenset({ExportState.RUNNING, ExportState.FAILED}),
    ExportState.RUNNING: frozenset({ExportState.QUEUED, ExportState.SUCCEEDED, ExportState.FAILED}),
    ExportState.SUCCEEDED: frozenset(),
    ExportState.FAILED: frozenset(),
}


def check_job(old: JobState, new: JobState) -> None:
    """Raise Conflict unless a job may go from ``old`` to ``new``."""
    _check("job", old, new, JOB_TRANSITIONS[old])


def check_trial(old: TrialState, new: TrialState) -> None:
    """Raise Conflict unless a trial may go from ``old`` to ``new``."""
    _check("trial", old, new, TRIAL_TRANSITIONS[old])


def check_export(old: ExportState, new: ExportState) -> None:
    """Raise Conflict unless an export may go from ``old`` to ``new``."""
    _check("export", old, new, EXPORT_TRANSITIONS[old])


def _check(what: str, old: StrEnum, new: StrEnum, allowed: frozenset[StrEnum]) -> None:
    if new not in allowed:
        follow = ", ".join(sorted(allowed)) or "nothing, it is final"
        raise Conflict(f"a {what} that is {old} cannot become {new} (what may follow: {follow})")
