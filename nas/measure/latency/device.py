"""What latencies are of: the hardware, and what computes on it."""

from __future__ import annotations

import platform

import torch


def device_name(device: str = "cpu") -> str:
    """The hardware and what computes on it: latencies are compared within one name alone."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_cpu_model()}, torch {torch.__version__}, 1 thread"


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no such file outside Linux
    return platform.processor() or platform.machine()
