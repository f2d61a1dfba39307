from __future__ import annotations

import json
import signal
import socket
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nas.catalogue.metrics import METRICS

ARCHITECTURE = {
    "width": 64,
    "layers": [{"attention": {"type": "full"}, "feedforward": {"type": "dense"}}] * 2,
}


@pytest.mark.parametrize("command", ["spaces", "tasks", "mechanisms", "strategies", "metrics"])
def test_the_catalogue_needs_no_service(
    nas: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("NAS_URL", "http://127.0.0.1:1")
    items = nas.json(command)["items"]
    said = nas(command).stdout
    assert all(item["name"] in said for item in items)
    assert max(map(len, said.splitlines())) <= 100


def test_mechanisms_of_one_kind(nas: Any) -> None:
    assert {m["kind"] for m in nas.json("mechanisms", "--kind", "halting")["items"]} == {"halting"}
    assert "allowed: attention" in nas.refused("mechanisms", "--kind", "magic")


def test_one_space_with_its_choices(nas: Any) -> None:
    assert nas.json("spaces", "tiny")["domains"]["width"] == [16, 32]
    assert "288" in nas("spaces", "tiny@1").stdout
    assert "efficient-lm" in nas.refused("spaces", "nowhere")


def test_profile_prices_an_architecture(nas: Any, tmp_path: Path) -> None:
    file = tmp_path / "arch.json"
    file.write_text(json.dumps(ARCHITECTURE))
    one = nas.json("profile", str(file), "--sequence-length", "128")
    assert one.keys() <= METRICS.keys()
    two = nas.json("profile", str(file), "--sequence-length", "128", "--batch-size", "2")
    assert two["flops"] == 2 * one["flops"]
    assert two["parameters"] == one["parameters"]
    shown = nas("profile", str(file), "--sequence-length", "128").stdout
    assert "parameters" in shown
    assert "latency: of " in shown
    file.write_text(json.dumps({"architecture": ARCHITECTURE, "anything": "else"}))
    assert nas.json("profile", str(file), "--sequence-length", "128") == one


def test_profile_says_what_is_wrong_with_an_architecture(nas: Any, tmp_path: Path) -> None:
    file = tmp_path / "arch.json"
    file.write_text(json.dumps({"architecture": {**ARCHITECTURE, "width": 63, "position": "none"}}))
    assert "/architecture/layers/0/heads" in nas.refused("profile", str(file))
    layer = {"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}}
    file.write_text(json.dumps({"width": 64, "layers": [layer], "position": "none"}))
    assert "/layers/0/attention" in nas.refused("profile", str(file), "--causal")
    assert nas("profile", str(file), "--encoder").exit_code == 0
    file.write_text("{")
    assert "not JSON" in nas.refused("profile", str(file))
    assert "cannot read" in nas.refused("profile", str(tmp_path / "absent"))


def test_config_says_where_settings_come_from(
    nas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paretoformer.toml").write_text('port = 9000\ncurrency = "CHF"\n')
    monkeypatch.setenv("NAS_PORT", "9001")
    monkeypatch.setenv("NAS_DATABASE", "postgresql://me:secret@db/nas")
    shown = nas.json("config")
    assert shown["port"] == {"value": 9001, "from": "NAS_PORT"}
    assert shown["currency"] == {"value": "CHF", "from": "paretoformer.toml"}
    assert shown["host"]["from"] == "default"
    assert shown["database"]["value"] == "postgresql://me:***@db/nas"
    assert "secret" not in nas("config").output


def test_db_upgrade_makes_the_database(nas: Any, tmp_path: Path) -> None:
    done = nas.json("db", "upgrade", "--data", str(tmp_path))
    with sqlite3.connect(tmp_path / "paretoformer.db") as database:
        versions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    assert versions == [(done["version"],)]
    assert nas.json("db", "upgrade", "--data", str(tmp_path)) == done


def test_databases_that_cannot_be_used_fail(nas: Any) -> None:
    said = nas.refused("db", "upgrade", "--database", "mysql://somewhere/nas", code=1)
    assert "SQLite or PostgreSQL" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", ""])  # noqa: S104
def test_serve_refuses_to_be_reached_from_elsewhere(nas: Any, tmp_path: Path, host: str) -> None:
    said = nas.refused("serve", "--no-worker", "--host", host, "--data", str(tmp_path / "data"))
    assert "127.0.0.1" in said
    assert not (tmp_path / "data").exists()


def test_serve_refuses_a_port_that_is_taken(nas: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = nas.refused("serve", "--port", port, "--data", str(tmp_path / "data"))
    assert "--port" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_it_is_told_to_stop(
    nas: Any, tmp_path: Path, number: signal.Signals
) -> None:
    serving = nas.start("serve", "--no-worker", "--port", "0", "--data", str(tmp_path), "--json")
    assert serving.stdout is not None
    ready = json.loads(serving.stdout.readline())
    with urllib.request.urlopen(f"{ready['url']}/healthz", timeout=10) as answer:  # noqa: S310
        assert answer.status == 200
    assert nas.json("jobs", "--url", ready["url"])["items"] == []
    serving.send_signal(number)
    _, said = serving.communicate(timeout=20)
    assert serving.returncode == 0, said
    assert "Traceback" not in said
