"""Latency on this device: timing whole models, and calibrating the table that predicts them."""

from nas.measure.latency.calibration import measure_table, merged
from nas.measure.latency.device import device_name
from nas.measure.latency.probes import around, build_probe, random_tokens, stepper
from nas.measure.latency.timing import measure_models, time_rounds

__all__ = [
    "around",
    "build_probe",
    "device_name",
    "measure_models",
    "measure_table",
    "merged",
    "random_tokens",
    "stepper",
    "time_rounds",
]
