"""Energy by the machine's own counters: RAPL for processors and memory, NVML for GPUs.

Counters count for the whole machine; a process is charged its share of the processor time that was
used meanwhile, so that what a machine draws is never charged twice. Where there are no counters,
or they cannot be read, nothing is told: an estimate is the business of who sends the bill.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import psutil

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 30.0
"""A counter must be read again before it has gone round: in minutes at the soonest."""
CALL_SECONDS = 1.0
"""So long is counted for one figure: counters are read at best every millisecond."""
JOULES_PER_MICROJOULE = 1e-6
JOULES_PER_MILLIJOULE = 1e-3


class Counter(Protocol):
    """Something that counts energy."""

    def joules(self) -> float:
        """What was used since the last call."""


@dataclass
class Zone:
    """A RAPL zone: a processor package, or the memory beside it.

    Source: Linux, Documentation/power/powercap/powercap.rst.
    """

    folder: Path
    span: int
    """The counter goes round at this many microjoules."""
    last: int

    @classmethod
    def at(cls, folder: Path) -> Zone:
        """The zone of this folder.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        return cls(folder, int((folder / "max_energy_range_uj").read_text()), _microjoules(folder))

    def joules(self) -> float:
        """What was used since the last call, which must be less than a round ago."""
        now = _microjoules(self.folder)
        used = now - self.last if now >= self.last else now - self.last + self.span
        self.last = now
        return used * JOULES_PER_MICROJOULE


def processors(root: Path = POWERCAP) -> list[Zone] | None:
    """The zones that make up this machine's processors and memory; None where one is unreadable.

    Cores and graphics are parts of their package, the platform zone contains it: none is counted.
    """
    try:
        zones = [
            Zone.at(folder)
            for folder in sorted(root.glob("intel-rapl:*"))
            if (name := (folder / "name").read_text().strip()).startswith("package")
            or name == "dram"
        ]
    except (OSError, ValueError):
        return None
    return zones or None


class Gpu:
    """One NVIDIA GPU's counter, which goes up from when its driver was loaded (NVML).

    Raises:
        OSError: there is no such GPU, or it does not count: those before Volta do not.
    """

    def __init__(self, uuid: str) -> None:
        import pynvml  # only where there is a GPU

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            raise OSError(f"GPU {uuid}: {error}") from error
        self._last = self._millijoules()

    def joules(self) -> float:
        """What was used since the last call."""
        now = self._millijoules()
        used, self._last = now - self._last, now
        return used * JOULES_PER_MILLIJOULE

    def _millijoules(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise OSError(f"a GPU's energy cannot be read: {error}") from error


def gpu(uuid: str) -> Gpu | None:
    """The GPU of this id, if it counts."""
    try:
        return Gpu(uuid)
    except OSError:
        return None


class Meter:
    """What this process uses while the block runs.

    machine: counters of which it is charged its share by processor time; None, not counted.
    device, share: a GPU's counter and the part of it that this process has.
    """

    def __init__(
        self, machine: list[Zone] | None, *, device: Counter | None = None, share: float = 0.0
    ) -> None:
        self._machine = machine
        self._device = device
        self._share = share
        self._counted = machine is not None and (device is not None or share == 0)
        self._joules = 0.0
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="energy-meter", daemon=True)

    @property
    def joules(self) -> float | None:
        """So far, as of the last sample; None where something that is used is not counted."""
        return self._joules if self._counted else None

    def __enter__(self) -> Meter:
        if self._counted:
            self._own, self._all = time.process_time(), _busy_seconds()
            self._sample(charge=False)
            self._watching.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._watching.ident is not None:
            self._ended.set()
            self._watching.join()
        if self._counted:
            self._sample()

    def _watch(self) -> None:
        while self._counted and not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self, charge: bool = True) -> None:
        try:
            machine = sum(zone.joules() for zone in self._machine or ())
            device = self._device.joules() if self._device is not None else 0.0
        except (OSError, ValueError):  # a counter that was there is not any more
            self._counted = False
            return
        own, busy = time.process_time(), _busy_seconds()
        if charge:
            # the machine's clock ticks in hundredths, the process's is finer
            used, whole = own - self._own, max(busy - self._all, own - self._own)
            self._joules += machine * used / whole if whole else 0.0
            self._joules += device * self._share
        self._own, self._all = own, busy


def joules_per_sample(
    call: Callable[[], object],
    samples: int,
    machine: list[Zone] | None,
    *,
    seconds: float = CALL_SECONDS,
) -> float | None:
    """What a sample of a call takes, over so many seconds of calls; None where none counts."""
    if machine is None:
        return None
    calls, end = 0, time.perf_counter() + seconds
    with Meter(machine) as meter:
        while not calls or time.perf_counter() < end:
            call()
            calls += 1
    return None if meter.joules is None else meter.joules / (calls * samples)


def _microjoules(folder: Path) -> int:
    return int((folder / "energy_uj").read_text())


def _busy_seconds() -> float:
    """Processor time of everything that has run on this machine."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)
