from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

ARCHITECTURE = {
    "width": 16,
    "layers": [{"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 2}],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "architecture": ARCHITECTURE,
                "task": {"name": "text_lm", "dataset": "mine", "sequence_length": 32},
                "recipe": {"batch_size": 4, "evaluation_batches": 2},
                "max_steps": 3,
                "data_hash": "0" * 64,
            }
        )
    )
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("the cat sat on the mat. " * 400)
    return path


def test_train_shows_metrics_and_leaves_a_model(nas: Any, config: Path, text: Path) -> None:
    out = config.parent / "trained"
    result = nas("train", str(config), "--data", str(text), "--steps", "4", "--threads", "1")
    assert result.exit_code == 0, result.output
    for part in ("validation before", "validation after", "test", "4 steps", "not the data"):
        assert part in result.stdout
    assert (out / "model.safetensors").is_file()
    said = nas.refused("train", str(config), "--data", str(text), "--steps", "4")
    assert "resume" in said


def test_train_as_json(nas: Any, config: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = nas.json("train", str(config), "--data", str(text), "--steps", "2", "-o", str(out))
    assert outcome["finished"]
    assert outcome["folder"] == str(out)
    assert outcome["test"]["loss"] < outcome["validation_before"]["loss"] * 2


def test_train_refuses_what_cannot_be_used(nas: Any, config: Path, tmp_path: Path) -> None:
    assert "does not exist" in nas.refused("train", str(tmp_path / "absent.json"))
    assert "do not exist" in nas.refused("train", str(config), "--data", str(tmp_path / "no.txt"))
    assert "device" in nas.refused("train", str(config), "--device", "abacus")
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, "recipes": {}}))
    assert "/recipes" in nas.refused("train", str(config))


def test_interrupted_training_leaves_a_checkpoint_and_says_how_to_go_on(
    nas: Any, config: Path, text: Path, tmp_path: Path
) -> None:
    arguments = ("train", str(config), "--data", str(text), "--steps", "20000", "--threads", "1")
    training = nas.start(*arguments, "-o", str(tmp_path / "out"))
    assert training.stderr is not None
    assert "step " in training.stderr.readline()
    training.send_signal(signal.SIGINT)
    _, said = training.communicate(timeout=20)
    assert training.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert (tmp_path / "out" / "checkpoint.pt").is_file()
