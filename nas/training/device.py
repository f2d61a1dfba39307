"""Which device to train on."""

from __future__ import annotations

import torch

from nas.errors import Unsupported


def resolve_device(name: str) -> torch.device:
    """``auto`` (CUDA, else MPS, else CPU), or the device of that name.

    Raises:
        Unsupported: no such device on this machine.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    if name.partition(":")[0] not in available:
        raise Unsupported(f"no device {name!r} here (there is: auto, {', '.join(available)})")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise Unsupported(f"no device {name!r} here: {error}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unsupported(f"no device {name!r} here: {torch.cuda.device_count()} are present")
    return device


def available_devices() -> tuple[str, ...]:
    """Kinds of device on this machine, the preferred one first."""
    accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return (*(name for name, present in accelerators.items() if present), "cpu")
