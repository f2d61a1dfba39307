"""Disks that fill up: a small one of its own where we may mount, else a limit on what is written.

Both give what a program sees of a full disk: a write fails, and what was written before stays.
"""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil


class Disk(Protocol):
    """Holds one folder. ``complaint``: what the operating system says when it is full."""

    complaint: str

    def fill(self) -> None: ...

    def free(self) -> None: ...


class SmallDisk:
    """A file system of a few megabytes, mounted over the folder."""

    complaint = "No space left on device"

    def __init__(self, folder: Path) -> None:
        self._filler = folder / ".filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        self._filler.unlink()


class LimitedWrites:
    """A bound on the length of the files that some processes may write; root is not needed.

    Only Python's processes are bound: Python takes it for an error, others are killed by it.
    """

    complaint = "File too large"

    def __init__(self, processes: Callable[[], Sequence[psutil.Process]]) -> None:
        self._processes = processes

    def fill(self) -> None:
        self._limit(4096)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for _ in range(2):  # those that were started meanwhile have inherited the old bound
            for process in self._processes():
                try:
                    if "python" in Path(process.exe()).name:
                        process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                except psutil.NoSuchProcess:
                    continue


@contextmanager
def small_disk(
    folder: Path, megabytes: int, processes: Callable[[], Sequence[psutil.Process]]
) -> Iterator[Disk]:
    """A disk under this folder; ``processes``: who writes there, where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield LimitedWrites(processes)
        return
    try:
        yield SmallDisk(folder)
    finally:
        # whatever still looks into it: it goes when the last one does
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
