"""Latency as it is predicted: analytic terms, and what a device takes for each of them."""

from nas.latency.table import LatencyTable, Measured
from nas.latency.terms import Mode

__all__ = ["LatencyTable", "Measured", "Mode"]
