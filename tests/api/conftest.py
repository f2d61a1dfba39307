"""The application over a real store, called in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import create_app
from nas.settings import Settings
from nas.store import Store

from .scene import Scene, settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a service in a folder of its own."""
    return settings_in(tmp_path)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """An empty store."""
    opened = Store(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def app(store: Store, settings: Settings) -> FastAPI:
    """The application."""
    return create_app(store, settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """What a user of the service holds."""
    with TestClient(app) as opened:
        yield opened


@pytest.fixture
def scene(store: Store, settings: Settings) -> Scene:
    """The worker's side."""
    return Scene(store, settings)
