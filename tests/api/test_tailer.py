from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from api.tailer import RECENT_EVENTS, Tailer
from nas.errors import StoreUnavailable
from nas.schemas import Event


class Log:
    """A log in memory that can be made to fail."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.broken = False
        self.reads = 0

    def write(self, count: int, last: bool = False) -> None:
        for _ in range(count):
            state = {"state": "succeeded" if last else "running"}
            seq = len(self.written) + 1
            self.written.append(Event(seq=seq, type="job", at=datetime.now(UTC), data=state))

    def event_heads(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        if self.broken:
            raise StoreUnavailable("away")
        return dict.fromkeys(job_ids, len(self.written))

    def events(self, job_id: str, after: int) -> Sequence[Event]:
        self.reads += 1
        return self.written[after : after + 100]


def test_who_is_slow_gets_everything_all_the_same() -> None:
    log = Log()
    count = 3 * RECENT_EVENTS

    async def scene() -> list[int]:
        tailer = Tailer(log, 0.001)
        polling = asyncio.create_task(tailer.run())
        log.write(1)
        stream = tailer.follow("job", 0, ended=False)
        seen = [(await anext(stream)).seq]
        second = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        log.write(count)
        log.write(1, last=True)
        seen.append((await second).seq)
        # meanwhile the tailer goes on to the end, and keeps only the latest
        await asyncio.sleep(0.3)
        seen += [event.seq async for event in stream]
        polling.cancel()
        return seen

    assert asyncio.run(scene()) == list(range(1, count + 3))


def test_a_store_that_comes_back_is_read_on() -> None:
    log = Log()

    async def scene() -> list[int]:
        tailer = Tailer(log, 0.001)
        polling = asyncio.create_task(tailer.run())
        stream = tailer.follow("job", 0, ended=False)
        first = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        log.broken = True
        log.write(2)
        await asyncio.sleep(0.02)
        assert not first.done()
        log.broken = False
        log.write(1, last=True)
        seen = [(await first).seq, *[event.seq async for event in stream]]
        polling.cancel()
        return seen

    assert asyncio.run(scene()) == [1, 2, 3]


def test_nothing_is_read_while_nobody_follows() -> None:
    log = Log()

    async def scene() -> None:
        tailer = Tailer(log, 0.001)
        polling = asyncio.create_task(tailer.run())
        log.broken = True  # a poll would be told in the log
        await asyncio.sleep(0.02)
        polling.cancel()

    asyncio.run(scene())
    assert log.reads == 0
