"""A note of the processes that a worker has started, for whoever comes after it has died.

Ray's processes were seen to outlive a killed driver by more than half a minute. They are ended by
recorded id and start time, never by name.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
import structlog

from nas.atomic import replacing
from workers.processes import Identity, reap

log = structlog.get_logger()


class Remains:
    """The notes in a folder: one file a worker, the worker itself first."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._path = folder / f"{worker}.json"
        self._last: list[Identity] = []

    def record(self, processes: Sequence[Identity]) -> None:
        """Note the worker and its processes, if anything has changed."""
        if list(processes) == self._last:
            return
        note = {**_here(), "processes": [asdict(p) for p in processes]}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps(note))
        except OSError as error:  # a full disk must not end the worker; the next beat tries again
            log.warning("processes not noted", reason=str(error))
            return
        self._last = list(processes)

    def forget(self) -> None:
        """All have ended."""
        self._path.unlink(missing_ok=True)

    def reap_others(self) -> None:
        """End what dead workers of this machine have left running."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                note = json.loads(path.read_text())
                worker, *processes = (Identity(**p) for p in note.pop("processes"))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                log.warning("note cannot be read", path=str(path), reason=str(error))
                continue
            if note != _here() or worker.process() is not None:
                continue
            if killed := reap(processes, grace=0.0):
                log.warning("leftovers ended", worker=path.stem, pids=killed)
            path.unlink(missing_ok=True)


def _here() -> dict[str, object]:
    """This machine since its last start: ids of processes mean nothing elsewhere."""
    return {"host": socket.gethostname(), "booted": psutil.boot_time()}
