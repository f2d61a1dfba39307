"""Export formats by name: each writes one file from a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from nas.export import config, huggingface
from nas.export.trial import ExportedTrial

FORMATS: Mapping[str, Callable[[Path, ExportedTrial], None]] = {
    "config": config.write,
    "huggingface": huggingface.write,
}
