"""Child processes that never outlive their parent, and the reaping of what was left behind.

A child holds the read end of a pipe whose write end only its parent has. When the parent is gone,
for whatever reason, the pipe ends, and the child winds down: this needs no signal that a
``kill -9`` could prevent, and works on every platform.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Identity:
    """A process beyond doubt: its id alone may have been given to another since."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The identity of a living process.

        Raises:
            psutil.NoSuchProcess: when there is none.
        """
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, if it is still the same one and no zombie."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class Child:
    """A running child: a Python module with its arguments, in a session of its own.

    The session keeps the terminal's Ctrl-C for the parent, who decides how the child ends.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        stdout: int | None = None,
    ) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=stdout,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            text=True,
        )
        self.identity = Identity.of(self.process.pid)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def say(self, line: str) -> None:
        """Write one line to the child's standard input; a child that is gone hears nothing."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                return

    def terminate(self) -> None:
        """Ask the child to wind down."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self, grace: float) -> int:
        """Ask, wait ``grace`` seconds, then kill the child and all its descendants."""
        descendants = descendants_of(self.process.pid)
        self.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            descendants = descendants_of(self.process.pid) + descendants
            self.process.kill()
        code = self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        reap(descendants, grace=2.0)
        return code


def descendants_of(pid: int) -> list[Identity]:
    """All living children, grandchildren … of a process."""
    try:
        return [Identity(p.pid, p.create_time()) for p in psutil.Process(pid).children(True)]
    except psutil.NoSuchProcess:
        return []


def reap(leftovers: Sequence[Identity], grace: float) -> list[int]:
    """End what is left of these processes, never one that merely has the same id.

    They get ``grace`` seconds to end by themselves. Returns the ids of those killed.
    """
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(i.process() for i in leftovers):
        time.sleep(0.05)
    killed = []
    for identity in leftovers:
        process = identity.process()
        if process is not None:
            try:
                process.kill()
                killed.append(identity.pid)
            except psutil.NoSuchProcess:
                continue
    return killed


def adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants (Linux), so that it can end them."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_orphans(known: Sequence[subprocess.Popen[str]]) -> None:
    """Collect adopted children that have ended, leaving those that somebody waits for."""
    mine = {p.pid for p in known}
    for child in psutil.Process().children():
        try:
            if child.pid not in mine and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue


def when_parent_ends(act: Callable[[], None]) -> None:
    """In a child: call ``act`` on a thread once the parent is gone (standard input has ended)."""

    def watch() -> None:
        # not through sys.stdin: its lock, held by a daemon thread, would abort the exit
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
