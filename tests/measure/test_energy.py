"""Counters of energy, over a tree of files like the one that Linux shows."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from nas.measure import energy
from nas.measure.energy import Meter, gpu, joules_per_sample, processors

SPAN = 262_143_328_850


class Machine:
    """Zones by name, as folders below one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, folder: str, name: str, microjoules: int = 0) -> Path:
        path = self.root / folder
        path.mkdir()
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{SPAN}\n")
        (path / "energy_uj").write_text(f"{microjoules}\n")
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Processor time of this process and of the whole machine."""
    seconds = {"own": 10.0, "busy": 100.0}
    monkeypatch.setattr(time, "process_time", lambda: seconds["own"])
    monkeypatch.setattr(energy, "_busy_seconds", lambda: seconds["busy"])
    return seconds


def count(zone: Path, microjoules: int) -> None:
    (zone / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_and_memory_count_and_their_parts_do_not(machine: Machine) -> None:
    wanted = {machine.zone(f"intel-rapl:{i}", f"package-{i}") for i in range(2)}
    wanted.add(machine.zone("intel-rapl:0:1", "dram"))
    machine.zone("intel-rapl:0:0", "core")
    machine.zone("intel-rapl:2", "psys")
    machine.zone("intel-rapl-mmio:0", "package-0")  # the same package by another way
    zones = processors(machine.root)
    assert zones is not None
    assert {zone.folder for zone in zones} == wanted


def test_a_machine_without_counters_tells_nothing(tmp_path: Path) -> None:
    assert processors(tmp_path) is None
    assert processors(tmp_path / "nowhere") is None
    with Meter(None) as meter:
        pass
    assert meter.joules is None


def test_a_counter_that_may_not_be_read_is_none(machine: Machine) -> None:
    machine.zone("intel-rapl:0", "package-0")
    hidden = machine.zone("intel-rapl:1", "package-1") / "energy_uj"
    hidden.unlink()
    hidden.mkdir()  # unreadable for whoever asks, root too
    assert processors(machine.root) is None


def test_a_counter_that_goes_round_goes_on(machine: Machine) -> None:
    folder = machine.zone("intel-rapl:0", "package-0", SPAN - 1_000_000)
    (zone,) = processors(machine.root) or []
    count(folder, 3_000_000)
    assert zone.joules() == pytest.approx(4.0)
    count(folder, 5_000_000)
    assert zone.joules() == pytest.approx(2.0)
    assert zone.joules() == 0.0


def test_a_process_is_charged_its_share_of_the_processor_time(
    machine: Machine, clocks: dict[str, float]
) -> None:
    folder = machine.zone("intel-rapl:0", "package-0", 7_000_000)
    zones = processors(machine.root)
    count(folder, 50_000_000)  # before it began: not its own
    with Meter(zones) as meter:
        clocks["own"] += 1.0
        clocks["busy"] += 4.0
        count(folder, 90_000_000)
    assert meter.joules == pytest.approx(10.0)


def test_the_share_is_never_more_than_all(machine: Machine, clocks: dict[str, float]) -> None:
    folder = machine.zone("intel-rapl:0", "package-0")
    with Meter(processors(machine.root)) as meter:
        clocks["own"] += 0.008  # less than the machine's clock can tell
        count(folder, 500_000)
    assert meter.joules == pytest.approx(0.5)


def test_it_is_read_on_the_way_before_it_has_gone_round(
    machine: Machine, clocks: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "SAMPLE_SECONDS", 0.01)
    folder = machine.zone("intel-rapl:0", "package-0")
    with Meter(processors(machine.root)) as meter:
        for step in (1, 2, 3):  # as much as a whole round in the end
            clocks["own"] += 1.0
            clocks["busy"] += 1.0
            count(folder, step * SPAN // 3 % SPAN)
            wanted = step * SPAN / 3 * 1e-6
            while (meter.joules or 0.0) < wanted * 0.999:
                time.sleep(0.005)
    assert meter.joules == pytest.approx(SPAN * 1e-6)


def test_a_counter_that_is_lost_on_the_way_makes_it_unknown(
    machine: Machine, clocks: dict[str, float]
) -> None:
    folder = machine.zone("intel-rapl:0", "package-0")
    with Meter(processors(machine.root)) as meter:
        (folder / "energy_uj").unlink()
    assert meter.joules is None


class FakeGpu:
    def __init__(self, joules: float) -> None:
        self._due = [0.0, joules]

    def joules(self) -> float:
        return self._due.pop(0)


def test_a_gpu_is_charged_by_what_the_process_has_of_it(
    machine: Machine, clocks: dict[str, float]
) -> None:
    folder = machine.zone("intel-rapl:0", "package-0")
    with Meter(processors(machine.root), device=FakeGpu(80.0), share=0.25) as meter:
        clocks["own"] += 1.0
        clocks["busy"] += 2.0
        count(folder, 6_000_000)
    assert meter.joules == pytest.approx(3.0 + 20.0)


def test_a_gpu_that_does_not_count_leaves_the_whole_unknown(machine: Machine) -> None:
    machine.zone("intel-rapl:0", "package-0")
    with Meter(processors(machine.root), device=None, share=1.0) as meter:
        pass
    assert meter.joules is None


class Nvml(ModuleType):
    """The few functions of NVML that are used, over one GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules = 1000
        self.counts = True

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1":
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.counts:
            raise self.NVMLError("not supported")
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_a_gpu_counts_from_when_it_is_first_read(nvml: Nvml) -> None:
    counter = gpu("GPU-1")
    assert counter is not None
    nvml.millijoules += 2500
    assert counter.joules() == pytest.approx(2.5)
    assert counter.joules() == 0.0
    nvml.counts = False
    with pytest.raises(OSError, match="not supported"):
        counter.joules()


def test_a_gpu_that_is_unknown_or_too_old_is_none(nvml: Nvml) -> None:
    assert gpu("GPU-2") is None
    nvml.counts = False
    assert gpu("GPU-1") is None


def test_a_sample_takes_its_part_of_what_its_calls_take(
    machine: Machine, clocks: dict[str, float]
) -> None:
    zone = machine.zone("intel-rapl:0", "package-0")
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        count(zone, 6_000_000 * len(calls))
        clocks["own"] += 1.0
        clocks["busy"] += 2.0  # half of the machine is ours

    machine_zones = processors(machine.root)
    assert joules_per_sample(call, 3, machine_zones, seconds=0.0) == pytest.approx(1.0)
    assert len(calls) == 1
    assert joules_per_sample(call, 3, machine_zones, seconds=0.01) == pytest.approx(1.0)
    assert len(calls) > 2
    assert joules_per_sample(call, 3, None) is None
