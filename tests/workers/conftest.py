from __future__ import annotations

from pathlib import Path

import pytest

from .bed import Bed


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)
