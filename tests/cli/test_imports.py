"""Commands that talk to a service start fast: they import neither the engine nor the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

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
codes = []
for command in json.loads(sys.argv[1]):
    try:
        app.app(command)
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps({"codes": codes, "modules": sorted({m.partition(".")[0] for m in sys.modules})}))
"""


def imported_by(*commands: list[str], url: str) -> set[str]:
    """The packages that a process has imported after these commands, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NAS_URL": url},
        timeout=60,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["codes"] == [0] * len(commands), done.stderr
    return set(said["modules"])


def test_http_commands_import_nothing_heavy(service: Any, finished: str, tmp_path: Path) -> None:
    worker = threading.Thread(target=service.serve_export)
    worker.start()
    modules = imported_by(
        ["jobs"],
        ["show", finished],
        ["watch", finished],
        ["trials", finished],
        ["pareto", finished],
        ["report", finished],
        ["data", "list"],
        ["export", finished, "--trial", "best:parameters", "-o", str(tmp_path)],
        url=service.url,
    )
    worker.join()
    assert modules.isdisjoint({*HEAVY, "matplotlib"})


def test_plots_need_matplotlib_alone(service: Any, finished: str, tmp_path: Path) -> None:
    plot = ["pareto", finished, "--plot", str(tmp_path / "p.png")]
    modules = imported_by(plot, url=service.url)
    assert "matplotlib" in modules
    assert modules.isdisjoint(HEAVY)


def test_help_imports_no_client(service: Any) -> None:
    modules = imported_by(["--help"], url=service.url)
    assert modules.isdisjoint({*HEAVY, "matplotlib", "httpx", "numpy"})
