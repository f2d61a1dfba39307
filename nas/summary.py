"""Architectures and metrics in few words, for tables and plots. Works on plain JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from nas.catalogue.metrics import METRICS


def attention_counts(architecture: Mapping[str, Any]) -> Counter[str]:
    """Layers by attention type, most first; equal counts in the order of the layers."""
    return Counter(dict(Counter(_types(architecture, "attention")).most_common()))


def halting_type(architecture: Mapping[str, Any]) -> str:
    """The type of halting; ``none`` where the document leaves it out."""
    return str(architecture.get("halting", {}).get("type", "none"))


def one_line(architecture: Mapping[str, Any]) -> str:
    """Width, attention and feed-forward from the first layer to the last, repeats, halting.

    ``64 wide: longformer×3 full | gated×4 | act ×4``
    """
    parts = [
        f"{architecture['width']} wide: {_runs(_types(architecture, 'attention'))}",
        _runs(_types(architecture, "feedforward")),
    ]
    repeats, halting = architecture.get("repeats", 1), halting_type(architecture)
    if halting != "none":
        parts.append(f"{halting} ×{repeats}")
    elif repeats > 1:
        parts.append(f"repeated ×{repeats}")
    return " | ".join(parts)


def short(metric: str, value: float) -> str:
    """A value in at most seven characters, without its unit: ``1.93``, ``412k``, ``2.1G``."""
    counted = metric in METRICS and METRICS[metric].unit in ("count", "FLOPs per batch")
    if counted or abs(value) >= 1000:
        return _thousands(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def label(metric: str) -> str:
    """A metric's name and unit as an axis shows them: ``latency (ms per batch)``."""
    if metric not in METRICS:
        return metric
    name = metric.removesuffix("_mb").removesuffix("_ms").replace("_", " ")
    name = {"flops": "FLOPs", "flops low": "FLOPs, at least"}.get(name, name)
    unit = METRICS[metric].unit
    return name if unit == "count" else f"{name} ({unit.removeprefix('FLOPs ')})"


def _types(architecture: Mapping[str, Any], block: str) -> list[str]:
    return [str(layer[block]["type"]) for layer in architecture["layers"]]


def _runs(types: Iterable[str]) -> str:
    runs = [(name, len(list(group))) for name, group in groupby(types)]
    return " ".join(name if n == 1 else f"{name}×{n}" for name, n in runs)


def _thousands(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,600 is 1.00M, not 1000k
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
