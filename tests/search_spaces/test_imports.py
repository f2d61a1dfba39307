"""The ground floor imports pydantic and nothing heavier."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "alembic",
    "fastapi",
    "matplotlib",
    "nas",
    "numpy",
    "optuna",
    "ray",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "torch",
}


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_loads_nothing_heavy_and_no_yaml() -> None:
    loaded = loaded_by("import search_spaces")
    assert "pydantic" in loaded
    assert not loaded & (HEAVY | {"yaml"})


def test_working_with_a_space_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "from search_spaces import load_space\n"
        "space = load_space('tiny')\n"
        "arch = space.mutate(space.sample(0), 1)\n"
        "space.describe(arch), space.fingerprint(arch), space.size()"
    )
    assert "yaml" in loaded
    assert not loaded & HEAVY
