from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nas.catalogue.tasks import ListOps, TextLM
from nas.schemas import TrainingRecipe
from nas.training.config import (
    Provenance,
    TrainingConfig,
    read_config,
    versions_here,
    write_config,
)
from search_spaces.errors import InvalidInput

from .architectures import ACT, tiny

CONFIG = TrainingConfig(
    architecture=ACT,
    task=TextLM(sequence_length=64),
    recipe=TrainingRecipe(learning_rate=0.003),
    max_steps=270,
    seed=7,
    data_hash="0" * 64,
    provenance=Provenance(job="j", trial="t", versions=versions_here(), metrics={"loss": 1.25}),
    weights="weights.safetensors",
)


def changed(folder: Path, **fields: Any) -> Path:
    """A file with the document, some of its keys replaced (None: left out)."""
    document = json.loads(CONFIG.model_dump_json()) | fields
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return path


def problem(path: Path) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as refused:
        read_config(path)
    return refused.value.problems[0].pointer, refused.value.problems[0].message


def test_a_document_survives_the_file(tmp_path: Path) -> None:
    write_config(tmp_path / "a" / "config.json", CONFIG)
    assert read_config(tmp_path / "a" / "config.json") == CONFIG
    listops = CONFIG.model_copy(update={"task": ListOps(max_length=900), "weights": None})
    write_config(tmp_path / "config.json", listops)
    read = read_config(tmp_path / "config.json")
    assert (read, read.architecture.fingerprint()) == (listops, ACT.fingerprint())


def test_a_full_training_is_ten_times_the_search_unless_said_otherwise(tmp_path: Path) -> None:
    assert CONFIG.full_steps == 2700
    assert json.loads(CONFIG.model_dump_json())["full_steps"] == 2700
    assert read_config(changed(tmp_path, full_steps=None)).full_steps == 2700
    assert read_config(changed(tmp_path, full_steps=99)).full_steps == 99


def test_unknown_keys_are_refused_where_they_are(tmp_path: Path) -> None:
    assert problem(changed(tmp_path, epochs=3))[0] == "/epochs"
    recipe = CONFIG.recipe.model_dump() | {"momentum": 0.9}
    assert problem(changed(tmp_path, recipe=recipe))[0] == "/recipe/momentum"


def test_values_out_of_range_are_refused_where_they_are(tmp_path: Path) -> None:
    task = {"name": "text_lm", "sequence_length": 3}
    assert problem(changed(tmp_path, task=task))[0] == "/task/sequence_length"
    assert problem(changed(tmp_path, task={"name": "chess"}))[0] == "/task"
    assert problem(changed(tmp_path, max_steps=0))[0] == "/max_steps"
    assert problem(changed(tmp_path, max_steps=0, full_steps=None))[0] == "/max_steps"
    assert problem(changed(tmp_path, schema_version=2))[0] == "/schema_version"


@pytest.mark.parametrize("key", ["architecture", "task", "recipe", "max_steps", "data_hash"])
def test_what_is_missing_is_named(tmp_path: Path, key: str) -> None:
    assert problem(changed(tmp_path, **{key: None}))[0] == f"/{key}"


@pytest.mark.parametrize("name", ["../w.safetensors", "/w.safetensors", "w.pt", "a/b.safetensors"])
def test_weights_are_named_not_pointed_to(tmp_path: Path, name: str) -> None:
    assert problem(changed(tmp_path, weights=name))[0] == "/weights"


def test_an_architecture_that_cannot_do_the_task_is_refused(tmp_path: Path) -> None:
    encoder = tiny("linformer").model_dump(mode="json")
    where, message = problem(changed(tmp_path, architecture=encoder))
    assert where == "/architecture/layers/0/attention/type"
    assert "cannot be causal" in message


def test_a_file_that_is_no_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert "No such file" in problem(path)[1]
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        assert "is not JSON" in problem(path)[1]
    path.write_text("[1]")
    assert problem(path)[0] == ""
    path.write_text(" " * (1 << 20) + "{}")
    assert "too large" in problem(path)[1]


def test_metrics_that_are_no_numbers_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="finite"):
        Provenance(metrics={"loss": float("nan")})
