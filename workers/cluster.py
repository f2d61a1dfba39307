"""A private Ray of one worker, held by a process of its own.

The holder starts Ray, prints its address, and shuts it down when it is told to or when the worker
is gone, however it went. Job processes come and go on the running Ray, which saves each of them the
seconds that a start takes.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
from types import TracebackType

from nas.errors import Unsupported
from workers.processes import Child, Identity, descendants_of, reap, when_parent_ends

START_SECONDS = 90.0
REACH_SECONDS = 5.0

LEAN_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
    "OMP_NUM_THREADS": "1",
    # every worker process of Ray's has torch and the trainable imported before it is needed
    "RAY_preload_python_modules": "workers.segments,workers.measuring",
    # … and stays so between two jobs
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
}
"""What every process that touches Ray has in its environment, from before the first import."""


class Cluster:
    """The address of a running Ray; ``local`` starts a private one while this is entered."""

    def __init__(self, address: str) -> None:
        self._given = address
        self._holder: Child | None = None
        self._descendants: list[Identity] = []
        self.address = address

    def __enter__(self) -> Cluster:
        if self.private:
            self.start()
        else:
            self._reach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def private(self) -> bool:
        """Whether this Ray is ours to start and stop."""
        return self._given == "local"

    @property
    def alive(self) -> bool:
        """Whether the holder of a private Ray still runs; of a given one nothing is known."""
        return self._holder is None or self._holder.exit_code is None

    @property
    def processes(self) -> list[Identity]:
        """The holder and all that Ray has started, as seen last."""
        if self._holder is None:
            return []
        return [
            self._holder.identity,
            *(descendants_of(self._holder.process.pid) or self._descendants),
        ]

    def _reach(self) -> None:
        """Make sure that something listens at the given address, before a job waits for it."""
        host, _, port = self._given.rpartition(":")
        if not host or not port.isdigit():
            raise Unsupported(f"{self._given} is no Ray address: give HOST:PORT, or local")
        try:
            socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
        except OSError as error:
            raise Unsupported(f"no Ray answers at {self._given}: {error.strerror}") from error

    def start(self) -> None:
        """Start a private Ray.

        Raises:
            Unsupported: with what Ray said, when it does not come up.
        """
        holder = Child("workers.cluster", environment=LEAN_RAY, stdout=subprocess.PIPE)
        timer = threading.Timer(START_SECONDS, holder.process.kill)
        timer.start()
        try:
            line = holder.process.stdout.readline() if holder.process.stdout else ""
        finally:
            timer.cancel()
        answer = json.loads(line) if line.startswith("{") else {}
        if "address" not in answer:
            holder.end(grace=2.0)
            reason = answer.get("error") or f"it gave no address within {START_SECONDS:.0f} s"
            raise Unsupported(f"Ray cannot start on this machine: {reason}")
        self._holder = holder
        self.address = answer["address"]
        self._descendants = descendants_of(holder.process.pid)

    def stop(self) -> None:
        """Stop a private Ray and whatever it leaves behind."""
        if self._holder is not None:
            leftovers = self.processes
            self._holder.end(grace=10.0)
            reap(leftovers, grace=2.0)
            self._holder = None

    def restart(self) -> None:
        """Replace a private Ray, dead or alive, by a fresh one."""
        self.stop()
        self.start()


def hold() -> None:
    """The holder's life: start Ray, tell its address, wait for the end, shut Ray down."""
    ended = threading.Event()
    when_parent_ends(ended.set)
    import ray

    try:
        context = ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=128 * 1024**2,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # noqa: BLE001 - whatever Ray raises is told to the worker
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has installed its own
        signal.signal(number, lambda *_: ended.set())
    address = context.address_info["gcs_address"]  # type: ignore[attr-defined]
    print(json.dumps({"address": address}), flush=True)
    ended.wait()
    ray.shutdown()


if __name__ == "__main__":
    hold()
