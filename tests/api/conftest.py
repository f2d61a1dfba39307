"""The application over a real store, called in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import create_app
from nas.settings import Settings
from nas.store import Store

from .scene import BASE_URL, Scene, settings_in


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
    with TestClient(app, base_url=BASE_URL) as opened:
        yield opened


@pytest.fixture
def scene(store: Store, settings: Settings) -> Scene:
    """The worker's side."""
    return Scene(store, settings)


@dataclass(frozen=True)
class Reading:
    """A service with a finished job, shared by tests that only read."""

    client: TestClient
    job: str


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Reading]:
    """The shared service."""
    folder = tmp_path_factory.mktemp("reading")
    shutil.copy(migrated_sqlite, folder / "store.db")
    store, settings = Store(f"sqlite:///{folder}/store.db"), settings_in(folder)
    job = Scene(store, settings).finished_job()
    with TestClient(create_app(store, settings), base_url=BASE_URL) as client:
        yield Reading(client, job)
    store.close()
