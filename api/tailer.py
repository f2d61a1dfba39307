"""One reader of new events per process, whatever the number of streams that follow them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from nas.errors import NasError, NotFound
from nas.schemas import Event

logger = logging.getLogger(__name__)

RECENT_EVENTS = 1000
"""Kept for each job that is followed; who has fallen further behind reads from the store again."""


class EventLog(Protocol):
    """Where events are read from. Both methods may block."""

    def event_heads(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        """The last seq of each of these jobs that exists, in one query."""

    def events(self, job_id: str, after: int) -> Sequence[Event]:
        """The next events of a job after that seq, in order; NotFound when the job is gone."""


@dataclass
class _Watch:
    """A followed job: its latest events up to seq ``cursor`` (None: not known yet)."""

    cursor: int | None = None
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=RECENT_EVENTS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0
    gone: bool = False

    def since(self, position: int) -> list[Event] | None:
        """The events after ``position``; None when only the store has them."""
        if self.cursor is None:
            return None
        if position >= self.cursor:
            return []
        if self.recent and self.recent[0].seq <= position + 1:
            return [event for event in self.recent if event.seq > position]
        return None

    def wake(self) -> None:
        """Let every follower look again."""
        self.changed.set()
        self.changed = asyncio.Event()


class Tailer:
    """Polls the log for all followed jobs at once and hands each event to all who follow its job.

    It lives in one event loop: ``run`` is a task of it for as long as anybody may follow.
    """

    def __init__(self, log: EventLog, poll_seconds: float) -> None:
        self._log = log
        self._poll_seconds = poll_seconds
        self._watches: dict[str, _Watch] = {}
        self._closed = False

    @property
    def followers(self) -> int:
        """Streams that are open now."""
        return sum(watch.followers for watch in self._watches.values())

    async def run(self) -> None:
        """Poll until cancelled; a store that fails is tried again."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._poll()
            except NasError as error:
                logger.warning("events cannot be read: %s", error)

    def close(self) -> None:
        """End all streams: the service stops."""
        self._closed = True
        for watch in self._watches.values():
            watch.wake()

    async def follow(self, job_id: str, after: int, *, ended: bool) -> AsyncIterator[Event]:
        """The job's events with seq > ``after``, each once and in order, until the job's last.

        ended: whether the job is known to have ended, so that no event is waited for.
        """
        watch = self._watches.setdefault(job_id, _Watch())
        watch.followers += 1
        try:
            while not self._closed:
                changed = watch.changed
                events = watch.since(after)
                if events is None:
                    try:
                        events = list(await run_in_threadpool(self._log.events, job_id, after))
                    except NotFound:
                        return  # deleted meanwhile, so it had ended
                    if not events and watch.cursor is None:
                        watch.cursor = after
                for event in events:
                    yield event
                    after = event.seq
                    ended = ended or event.last
                if not events:
                    if ended or watch.gone:
                        return
                    await changed.wait()
        finally:
            watch.followers -= 1
            if not watch.followers and self._watches.get(job_id) is watch:
                del self._watches[job_id]

    async def _poll(self) -> None:
        cursors = {job: w.cursor for job, w in self._watches.items() if w.cursor is not None}
        if not cursors:
            return
        fresh = await run_in_threadpool(self._read, cursors)
        for job_id, cursor in cursors.items():
            watch = self._watches.get(job_id)
            if watch is None or watch.cursor != cursor:
                continue  # followed anew meanwhile, from another place
            events = fresh.get(job_id)
            if events is None:
                watch.gone = True
            elif not events:
                continue
            else:
                watch.recent.extend(events)
                watch.cursor = events[-1].seq
            watch.wake()

    def _read(self, cursors: Mapping[str, int]) -> dict[str, Sequence[Event]]:
        """New events of each job after its cursor; a job that is gone is left out."""
        heads = self._log.event_heads(list(cursors))
        return {
            job_id: self._log.events(job_id, cursors[job_id]) if head > cursors[job_id] else ()
            for job_id, head in heads.items()
        }
