"""Commands that talk to a service start fast: they import neither the engine nor the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "ray",
    "optuna",
    "sklearn",
    "scipy",
    "alembic",
    "sqlalchemy",
    "fastapi",
    "uvicorn",
)
PROGRAM = """
import json, sys
from nas.cli import app
try:
    app.app(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "modules": sorted({m.partition(".")[0] for m in sys.modules})}))
"""


def run(*arguments: str, url: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NAS_URL": url},
        timeout=60,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    return said["code"], set(said["modules"])


@pytest.mark.parametrize(
    "command", [("jobs",), ("pareto", "latest"), ("trials", "latest"), ("data", "list")]
)
def test_http_commands_import_nothing_heavy(
    service: Any, finished: str, command: tuple[str, ...]
) -> None:
    arguments = [finished if a == "latest" else a for a in command]
    code, modules = run(*arguments, url=service.url)
    assert code == 0
    assert modules.isdisjoint({*HEAVY, "matplotlib"})


def test_export_imports_nothing_heavy(service: Any, finished: str, tmp_path: Path) -> None:
    worker = threading.Thread(target=service.serve_export)
    worker.start()
    code, modules = run(
        "export", finished, "--trial", "best:parameters", "-o", str(tmp_path), url=service.url
    )
    worker.join()
    assert code == 0
    assert modules.isdisjoint({*HEAVY, "matplotlib"})


def test_plots_need_matplotlib_alone(service: Any, finished: str, tmp_path: Path) -> None:
    code, modules = run("pareto", finished, "--plot", str(tmp_path / "p.png"), url=service.url)
    assert code == 0
    assert "matplotlib" in modules
    assert modules.isdisjoint(HEAVY)


def test_help_imports_no_client(service: Any) -> None:
    code, modules = run("--help", url=service.url)
    assert code == 0
    assert modules.isdisjoint({*HEAVY, "matplotlib", "httpx", "numpy"})
