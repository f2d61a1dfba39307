from __future__ import annotations

from pathlib import Path

import pytest

from nas.catalogue.tasks import TextLM
from nas.tasks import Task, build_task


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def text(cache: Path) -> Task:
    return build_task(TextLM(sequence_length=32), dataset=None, cache=cache)
