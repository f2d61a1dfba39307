"""What a worker says to the processes that it starts, and how they answer."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import structlog

from nas.settings import Settings

log = structlog.get_logger()


class Exit(IntEnum):
    """How a job's process ends; anything else is a crash."""

    FINISHED = 0
    DRAINED = 3
    LEASE_LOST = 4
    STORE_UNAVAILABLE = 5
    RAY_UNAVAILABLE = 6


@dataclass(frozen=True)
class Order:
    """Run this job under this lease."""

    job: str
    token: int

    def to_line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Order:
        """Back from its line."""
        return cls(**json.loads(line))


def note_crash(settings: Settings, job: str, reason: str) -> None:
    """Leave word of why a job's process is about to end unexpectedly."""
    path = _note(settings, job)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason, encoding="utf-8")
    except OSError as error:  # the disk may be the very reason
        log.warning("reason not noted", job=job, path=str(path), reason=str(error))


def crash_reason(settings: Settings, job: str) -> str | None:
    """The word that was left, if there is any."""
    try:
        return _note(settings, job).read_text(encoding="utf-8") or None
    except (OSError, UnicodeDecodeError):
        return None


def forget_crash(settings: Settings, job: str) -> None:
    """The word has been passed on."""
    with suppress(OSError):
        _note(settings, job).unlink(missing_ok=True)


def _note(settings: Settings, job: str) -> Path:
    return settings.checkpoints / job / "crash.txt"
