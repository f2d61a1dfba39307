"""What work is reckoned at: energy where no counter measured it, and device-hours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nas.schemas import Resources
from nas.settings import Settings

JOULES_PER_KWH = 3.6e6
SECONDS_PER_HOUR = 3600.0
WORLD_CO2_KG_PER_KWH = 0.475
"""Mean of the world's electricity (IEA, Global Energy and CO₂ Status Report 2019)."""


@dataclass(frozen=True)
class Work:
    """Core-seconds, and those of them whose energy counters have measured, in kWh."""

    core_seconds: float
    metered_core_seconds: float = 0.0
    metered_kwh: float = 0.0

    @classmethod
    def done(cls, core_seconds: float, metered_kwh: float | None) -> Work:
        """One piece; None: no counter has measured its energy."""
        if metered_kwh is None:
            return cls(core_seconds)
        return cls(core_seconds, core_seconds, metered_kwh)

    @property
    def energy_source(self) -> Literal["estimated", "measured", "partly measured"]:
        """How its energy is known."""
        if not self.metered_core_seconds:
            return "estimated"
        # sums of the same numbers in another order may differ in the last place
        whole = math.isclose(self.metered_core_seconds, self.core_seconds, rel_tol=1e-9)
        return "measured" if whole else "partly measured"

    def __add__(self, other: Work) -> Work:
        return Work(
            self.core_seconds + other.core_seconds,
            self.metered_core_seconds + other.metered_core_seconds,
            self.metered_kwh + other.metered_kwh,
        )


@dataclass(frozen=True)
class Rates:
    """Of one job's trials.

    kwh_per_core_second: of what no counter has measured, the GPUs beside the cores included.
    devices_per_core: GPUs where the job takes any, else cores.
    """

    kwh_per_core_second: float
    devices_per_core: float

    @classmethod
    def of(cls, settings: Settings, resources: Resources) -> Rates:
        """By the settings, for trials that take these resources."""
        gpus_per_core = resources.gpus / resources.threads
        watts = settings.watts_per_core + settings.watts_per_gpu * gpus_per_core
        return cls(watts / JOULES_PER_KWH, gpus_per_core or 1.0)

    def kwh(self, work: Work) -> float:
        """Energy: as measured, and estimated for the rest."""
        unmetered = max(0.0, work.core_seconds - work.metered_core_seconds)
        return work.metered_kwh + unmetered * self.kwh_per_core_second

    def device_hours(self, work: Work) -> float:
        """Hours of a device: a GPU where the job takes any, else a core."""
        return work.core_seconds * self.devices_per_core / SECONDS_PER_HOUR
