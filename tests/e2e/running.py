"""A service for the end-to-end tests: `nas serve`, as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from nas.client import Client
from nas.schemas import Job

NAS = str(Path(sys.executable).parent / "nas")


@dataclass
class Service:
    """A service under test."""

    url: str
    data: Path
    process: subprocess.Popen[str]
    log: Path

    @property
    def client(self) -> Client:
        return Client(self.url)

    def wait(self, job: str, seconds: float = 240) -> Job:
        """The job once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.client.job(job)
            if found.state.final:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{job} has not ended within {seconds} s:\n{self.log.read_text()}")

    def nas(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of the shell against the service."""
        return subprocess.run(
            [NAS, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, "NAS_URL": self.url},
            check=False,
        )

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_service(data: Path, port: int | None = None, database: str | None = None) -> Service:
    """Start it and wait until it and its worker are ready."""
    port = port or free_port()
    place = ["--database", database] if database else []
    data.mkdir(parents=True, exist_ok=True)
    log = data.with_suffix(".log")
    with log.open("a") as out:
        process = subprocess.Popen(
            [NAS, "serve", "--port", str(port), "--data", str(data), *place],
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )
    service = Service(f"http://127.0.0.1:{port}", data, process, log)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{service.url}/readyz", timeout=5).is_success:
                return service
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    service.stop(signal.SIGKILL)
    raise AssertionError(f"not ready within 90 s:\n{log.read_text()}")


def family(pid: int) -> list[psutil.Process]:
    """All living descendants of a process."""
    return psutil.Process(pid).children(recursive=True)


def survivors(processes: list[psutil.Process], seconds: float = 15) -> list[psutil.Process]:
    """Those still alive after a while."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
