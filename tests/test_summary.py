from __future__ import annotations

from typing import Any

import pytest

from nas.catalogue.metrics import METRICS
from nas.summary import attention_counts, label, one_line, short


def architecture(*attention: str, **rest: Any) -> dict[str, Any]:
    layers = [{"attention": {"type": a}, "feedforward": {"type": "dense"}} for a in attention]
    return {"width": 64, "layers": layers, **rest}


def test_attention_is_counted_most_first() -> None:
    counts = attention_counts(architecture("full", "linear", "performer", "linear"))
    assert list(counts.items()) == [("linear", 2), ("full", 1), ("performer", 1)]


def test_one_line_runs_from_the_first_layer_to_the_last() -> None:
    assert one_line(architecture("full", "linear", "linear", "full")) == (
        "64 wide: full linear×2 full | dense×4"
    )
    assert one_line(architecture("full", repeats=3)) == "64 wide: full | dense | repeated ×3"
    assert one_line(architecture("full", repeats=3, halting={"type": "act"})) == (
        "64 wide: full | dense | act ×3"
    )


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("parameters", 0, "0"),
        ("parameters", 999, "999"),
        ("parameters", 412_345, "412k"),
        ("parameters", 999_600, "1M"),
        ("flops", 2.134e9, "2.13G"),
        ("loss", 1.93456, "1.935"),
        ("loss", 12.345, "12.3"),
        ("latency_ms", 234.4, "234"),
        ("latency_ms", 0.0004, "4.0e-04"),
        ("latency_ms", 12_345.0, "12.3k"),
        ("unknown", -0.5, "-0.500"),
    ],
)
def test_values_are_short(metric: str, value: float, text: str) -> None:
    assert short(metric, value) == text


def test_labels_name_the_unit() -> None:
    assert label("latency_ms") == "latency (ms per batch)"
    assert label("parameters") == "parameters"
    assert label("flops") == "FLOPs (per batch)"
    assert len({label(name) for name in METRICS}) == len(METRICS)
