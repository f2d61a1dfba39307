"""Every kind of process is killed in mid-job: nothing is lost or repeated, and nobody stays."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from nas.client import Client
from nas.schemas import Event
from nas.states import JobState
from tests.e2e.running import Service, family, free_port, start_service, survivors
from tests.e2e.slow_job import SLOW, assert_whole, curves, more_rows, training, until

JOB: dict[str, Any] = {
    **SLOW,
    "fidelity": {**SLOW["fidelity"], "max_steps": 180, "min_steps": 20},
    "budget": {"trials": 24},
}
MODULES = {"worker": "workers.service", "job": "workers.driver", "ray": "workers.cluster"}
VICTIMS = ["actor", "job", "ray", "worker", "all of the worker's", "service"]


class Follower:
    """A client that reads a job's events from the first to the last, through all interruptions."""

    def __init__(self, url: str, job: str) -> None:
        self.seen: list[Event] = []
        self._thread = threading.Thread(target=self._follow, args=(url, job), daemon=True)
        self._thread.start()

    def _follow(self, url: str, job: str) -> None:
        for event in Client(url).events(job, patience=120):
            self.seen.append(event)

    def finish(self) -> list[Event]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.seen


def test_whatever_is_killed_the_job_is_finished_whole(tmp_path: Path) -> None:
    data = tmp_path / "data"
    port = free_port()
    service = start_service(data, port)
    everybody: list[psutil.Process] = []
    try:
        job = service.client.submit(JOB).id
        follower = Follower(service.url, job)
        before: dict[str, list[Any]] = {}
        for victim in random.Random(20).sample(VICTIMS, len(VICTIMS)):
            until(training(service, job, trials=2), 60, "training")
            until(more_rows(service, job), 60, "more rungs finished")
            assert service.client.job(job).state is JobState.RUNNING
            before = curves(service, job)
            everybody += family(service.process.pid)
            kill(service, victim)
            if victim == "service":
                service = start_service(data, port)
        finished = service.wait(job)
        assert_whole(service, finished, before)
        events = follower.finish()
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert events[-1].data["state"] == "succeeded"
    finally:
        everybody += family(service.process.pid)
        service.stop()
    assert survivors(everybody) == []


def test_a_dead_workers_job_goes_on_within_15_seconds(service: Service) -> None:
    client = service.client
    job = client.submit({**SLOW, "seed": 6, "budget": {"trials": 30}}).id
    until(training(service, job, trials=2), 60, "training")
    seen = len(list(log_lines(service, "job claimed")))
    kill(service, "worker")
    until(lambda: len(list(log_lines(service, "job claimed"))) > seen, 15, "claimed again")
    client.cancel(job)
    until(lambda: client.job(job).state is JobState.CANCELLED, 10, "cancelled")


def test_a_job_that_keeps_killing_its_process_fails_with_the_reason(service: Service) -> None:
    client = service.client
    long = {**SLOW, "fidelity": {"max_steps": 100_000, "min_steps": 50_000}}
    job = client.submit(long).id
    for life in range(1, 4):
        until(searching(service, job, life), 60, "searching")
        kill(service, "job")
    failed = service.wait(job, 30)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert "3 times" in failed.error
    assert "signal 9" in failed.error


def searching(service: Service, job: str, times: int) -> Callable[[], bool]:
    """Whether so many processes have begun to search for the job."""
    return lambda: (
        sum(job in line and "searching" in line for line in log_lines(service, "phase")) >= times
    )


def kill(service: Service, victim: str) -> None:
    """kill -9 what plays this part."""
    if victim == "service":
        service.process.kill()
        service.process.wait()
        return
    relatives = family(service.process.pid)
    if victim == "actor":
        # Ray names its processes after what they run: an actor at work after its method
        chosen = until(lambda: [p for p in relatives if at_work(p)], 5, "an actor at work")[:1]
    elif victim == "job":  # the older one works, the younger one waits for the next
        chosen = [min(running(relatives, MODULES["job"]), key=lambda p: p.create_time())]
    elif victim in MODULES:
        chosen = running(relatives, MODULES[victim])
    else:
        chosen = [p for module in MODULES.values() for p in running(relatives, module)]
    assert chosen
    for process in chosen:
        process.kill()


def running(relatives: list[psutil.Process], module: str) -> list[psutil.Process]:
    """Those that run this module."""
    return [p for p in relatives if p.is_running() and module in p.cmdline()]


def at_work(process: psutil.Process) -> bool:
    """Whether it is an actor that trains."""
    try:
        return any("Trainable.train" in part for part in process.cmdline()[:1])
    except psutil.NoSuchProcess:
        return False


def log_lines(service: Service, text: str) -> Iterator[str]:
    """Lines of the service's log that hold this text."""
    return (line for line in service.log.read_text().splitlines() if text in line)
