"""The service and the client need neither torch nor ray, and start at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "ray", "optuna", "sklearn", "alembic", "scipy", "matplotlib", "pandas", "workers"}


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["api", "nas.client"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_the_client_needs_no_database_and_no_server() -> None:
    loaded = {name.partition(".")[0] for name in loaded_by("import nas.client")}
    assert not loaded & {"sqlalchemy", "fastapi", "uvicorn", "numpy", "api"}


def test_a_service_at_work_loads_nothing_heavy(sqlite_url: str, tmp_path: Path) -> None:
    loaded = loaded_by(
        "from pathlib import Path\n"
        "from api import create_app\n"
        "from nas.settings import Settings\n"
        "from nas.store import Store\n"
        f"app = create_app(Store({sqlite_url!r}), Settings(data=Path({str(tmp_path)!r})))\n"
        "app.openapi()\n"
        "from fastapi.testclient import TestClient\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "with TestClient(app, base_url='http://127.0.0.1') as client:\n"
        "    for path in ('/v1/spaces', '/v1/mechanisms', '/v1/jobs', '/readyz', '/metrics'):\n"
        "        assert client.get(path).status_code in (200, 503), path\n"
        "    layer = {'attention': {'type': 'full'}, 'feedforward': {'type': 'dense'}}\n"
        "    body = {'architectures': [{'width': 32, 'layers': [layer]}]}\n"
        "    assert client.post('/v1/architectures/profile', json=body).is_success\n"
    )
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
