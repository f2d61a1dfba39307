from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest

from nas.catalogue.tasks import TASKS, TaskConfig, TextClassification
from nas.errors import Unsupported
from nas.export import ExportedTrial, write
from nas.export.huggingface.bundle import bundle
from nas.export.huggingface.card import citations, drawing
from nas.schemas import Bill, Front, Interval, Trial
from nas.states import TrialState

from .folders import CLASSES, FULL, LM, architecture, document, exported, layer


def member(number: int, loss: float) -> Trial:
    arch = architecture(FULL)
    return Trial(
        id=f"trial_{number}",
        job="job_1",
        number=number,
        architecture=arch.model_dump(mode="json"),
        fingerprint=arch.fingerprint(),
        origin="random",
        metrics={"loss": loss, "parameters": 1000 * number},
        rung=2,
        fidelity=1.0,
        state=TrialState.COMPLETED,
        error=None,
        verified={"loss": Interval(mean=1.62, low=1.5, high=1.7, n=2)},
        seed=0,
        created_at="2026-01-01T00:00:00Z",
        finished_at=None,
    )


BILL = Bill(
    core_seconds=120,
    search_core_seconds=100,
    verification_core_seconds=20,
    energy_kwh=0.25,
    energy_source="measured",
    co2_kg=0.1,
    money=0.02,
    currency="EUR",
)


def test_the_card_tells_the_story_of_the_trial(tmp_path: Path) -> None:
    front = Front(
        objectives=["loss", "parameters"],
        items=[member(2, 1.25), member(1, 1.5)],
        hypervolume=0.5,
        reference_point={},
        knee="trial_1",
        homogeneous=[],
    )
    arch = architecture(layer("performer"), repeats=2, halting={"type": "act"})
    exported(tmp_path / "winner", arch, LM, front=front, bill=BILL)
    card = (tmp_path / "winner" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "Trial `trial_1` of job `job_1`" in card
    assert arch.fingerprint() in card
    assert "Number 2 of 2 by loss, its knee:" in card
    assert r"| → | 1.500 | 1k | 16 wide: full \| dense |" in card
    assert "| loss | 1.500 | 1.620 (1.500–1.700, n = 2) |" in card
    assert "120 core-seconds (of which 20 for verification), 0.25 kWh (measured)" in card
    assert "arXiv:2009.14794" in card
    assert drawing(arch, 256) in card


def test_a_card_without_a_front_has_none(tmp_path: Path) -> None:
    exported(tmp_path / "winner", architecture(FULL), CLASSES)
    card = (tmp_path / "winner" / "README.md").read_text()
    assert "Pareto front" not in card
    assert "Bill" not in card
    assert "Classes: LABEL_0, LABEL_1" in card


def test_equal_layers_are_drawn_as_one_line() -> None:
    drawn = drawing(architecture(FULL, FULL, layer("linear"), repeats=3), 7)
    assert re.search(r"1–2 +full .*2 heads  →  dense", drawn)
    assert re.search(r"3 +linear", drawn)
    assert "3 times" in drawn
    assert "7 outputs" in drawn


def test_each_source_is_cited_once() -> None:
    cited = citations(architecture(FULL, FULL, layer("linear")))
    assert sum("Full" in line for line in cited) == 1
    assert any("arXiv:2006.16236" in line for line in cited)
    assert not any("halting" in line for line in cited)


def test_without_weights_there_is_no_such_export(tmp_path: Path) -> None:
    trial = ExportedTrial(document(architecture(FULL), LM))
    with pytest.raises(Unsupported, match="weights are gone"):
        write("huggingface", tmp_path / "t.zip", trial)
    assert os.listdir(tmp_path) == []


def test_labels_that_do_not_fit_the_task_are_numbered(tmp_path: Path) -> None:
    exported(tmp_path / "winner", architecture(FULL), CLASSES, labels=("good", "bad"))
    config = json.loads((tmp_path / "winner" / "config.json").read_text())
    assert config["id2label"] == {str(i): f"LABEL_{i}" for i in range(6)}


def test_a_bundle_imports_nothing_of_the_project(tmp_path: Path) -> None:
    exported(tmp_path / "winner", architecture(layer("performer")), LM)
    files = list((tmp_path / "winner").glob("*.py"))
    names = {path.stem for path in files}
    assert not [name for name in names if name.endswith("models_attention_reformer")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                assert node.module in names
            elif isinstance(node, ast.ImportFrom):
                assert str(node.module).split(".")[0] not in {"nas", "search_spaces"}


@pytest.mark.parametrize("line", ["import nas.errors", "from . import errors"])
def test_an_import_that_no_file_can_follow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "strange.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="strange, line 1"):
        bundle({"strange": "entry"}, {})


def test_the_same_export_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        exported(tmp_path / name, architecture(FULL), LM)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_names_of_classes_are_as_many_as_there_are(task: type[TaskConfig]) -> None:
    config = task()  # type: ignore[call-arg]
    names = config.labels()
    if config.shape().head == "pooled":
        assert names is not None
        assert len(set(names)) == config.shape().num_outputs
    else:
        assert names is None


def test_uploaded_data_name_their_classes_themselves() -> None:
    assert TextClassification(dataset="films", classes=2).labels() is None
