from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas.catalogue.tasks import TextLM
from nas.errors import Conflict, DataUnavailable, TrialFailed
from nas.schemas import TrainingRecipe
from nas.tasks import Task, build_task
from nas.training import full
from nas.training.checkpoint import load_checkpoint, load_weights
from nas.training.config import TrainingConfig, write_config
from nas.training.full import TrainingProgress, train_config
from nas.training.loop import initial_model
from nas.training.segment import Segment, run_segment
from nas.training.weights import write_weights
from search_spaces.errors import InvalidInput

from .architectures import tiny

RECIPE = TrainingRecipe(batch_size=8, learning_rate=0.01, evaluation_batches=8)


@pytest.fixture(scope="module")
def exported(text: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A configuration with its trial's weights beside it, and the trial's metrics."""
    folder = tmp_path_factory.mktemp("exported")
    segment = Segment(tiny(), RECIPE, 20, 20, 1, folder / "trial.pt")
    metrics = run_segment(segment, text).metrics
    write_weights(folder / "weights.safetensors", load_weights(folder / "trial.pt"))
    config = TrainingConfig(
        architecture=tiny(),
        task=text.config,
        recipe=RECIPE,
        max_steps=20,
        full_steps=30,
        seed=1,
        data_hash=text.data_hash,
        weights="weights.safetensors",
    )
    write_config(folder / "config.json", config)
    return folder / "config.json", metrics


@pytest.fixture
def arguments(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(full, "TEST_BATCHES", 16)
    return {"cache": cache, "out": tmp_path / "out", "device": "cpu", "threads": 1}


def test_from_scratch_it_learns_and_leaves_all_files(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any], text: Task
) -> None:
    outcome = train_config(exported[0], **arguments)
    assert (outcome.finished, outcome.steps, outcome.same_data) == (True, 30, True)
    assert outcome.validation_before["loss"] == pytest.approx(5.55, abs=0.2)
    assert outcome.validation_after["loss"] < text.trivial_loss
    assert outcome.test["loss"] == pytest.approx(outcome.validation_after["loss"], abs=0.4)
    assert set(outcome.validation_after) == set(text.config.metrics)
    assert 1 <= outcome.validation_after["effective_context"] <= 32
    out = arguments["out"]
    written = json.loads((out / "metrics.json").read_text())
    assert written["validation_after"] == outcome.validation_after
    assert written["data_hash"] == text.data_hash
    model = initial_model(tiny(), text, 0)
    model.load_state_dict(load_file(out / "model.safetensors"))
    assert TrainingConfig.model_validate_json((out / "config.json").read_text()).weights is None


def test_from_the_trials_weights_it_starts_where_the_trial_ended(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any]
) -> None:
    outcome = train_config(exported[0], from_weights=True, **arguments)
    assert outcome.validation_before == exported[1]
    assert outcome.validation_after["loss"] < exported[1]["loss"] - 0.05


@pytest.mark.parametrize("from_weights", [False, True])
def test_interrupted_and_resumed_it_ends_bit_for_bit_as_in_one_go(
    exported: tuple[Path, dict[str, float]],
    arguments: dict[str, Any],
    tmp_path: Path,
    from_weights: bool,
) -> None:
    arguments |= {"from_weights": from_weights}
    whole = train_config(exported[0], **(arguments | {"out": tmp_path / "whole"}), steps=12)
    asked = iter(range(100))
    part = train_config(exported[0], **arguments, steps=12, should_stop=lambda: next(asked) >= 5)
    assert (part.finished, part.steps, part.validation_after) == (False, 5, {})
    assert not (arguments["out"] / "metrics.json").exists()
    arguments |= {"from_weights": False}  # what it was begun with counts
    rest = train_config(exported[0], **arguments, resume=True)
    assert (rest.finished, rest.steps) == (True, 12)
    assert rest.validation_before == whole.validation_before
    assert (rest.validation_after, rest.test) == (whole.validation_after, whole.test)
    assert rest.seconds > part.seconds
    one, other = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", arguments["out"])
    )
    assert all(one[name].equal(other[name]) for name in one)


def test_it_saves_and_reports_on_the_way(
    exported: tuple[Path, dict[str, float]],
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(full, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(full, "REPORT_SECONDS", 0.0)
    saved: list[int] = []
    told: list[TrainingProgress] = []

    def on_progress(progress: TrainingProgress) -> None:
        told.append(progress)
        saved.append(load_checkpoint(arguments["out"] / "checkpoint.pt").steps)

    train_config(exported[0], **arguments, on_progress=on_progress)
    assert saved == [p.step for p in told] == list(range(1, 31))
    assert {p.steps for p in told} == {30}
    assert told[0].loss == pytest.approx(5.5, abs=0.2)
    assert told[-1].loss < told[0].loss - 1
    assert [p.seconds for p in told] == sorted(p.seconds for p in told)


def test_the_last_step_is_reported_however_fast(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any]
) -> None:
    told: list[int] = []
    train_config(exported[0], **arguments, steps=2, on_progress=lambda p: told.append(p.step))
    assert told == [2]


def test_a_training_is_not_overwritten_or_stretched(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any]
) -> None:
    train_config(exported[0], **arguments, steps=2)
    with pytest.raises(Conflict, match="resume it or use another folder"):
        train_config(exported[0], **arguments, steps=2)
    with pytest.raises(Conflict, match="begun for 2 steps"):
        train_config(exported[0], **arguments, steps=3, resume=True)
    assert train_config(exported[0], **arguments, resume=True).steps == 2


def test_resuming_where_nothing_was_begun_begins(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any]
) -> None:
    assert train_config(exported[0], **arguments, steps=1, resume=True).finished


def test_a_corrupt_checkpoint_is_not_resumed(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any]
) -> None:
    arguments["out"].mkdir()
    (arguments["out"] / "checkpoint.pt").write_bytes(b"rubbish")
    with pytest.raises(TrialFailed, match="corrupt checkpoint"):
        train_config(exported[0], **arguments, resume=True)


def test_ones_own_data_take_the_place_of_the_searchs(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_bytes(b"abcd" * 5000)
    outcome = train_config(exported[0], **arguments, data=tmp_path / "own.txt")
    assert outcome.same_data is False
    assert outcome.test["accuracy"] > 0.9


def test_data_that_are_needed_and_not_given(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any], tmp_path: Path
) -> None:
    config = TrainingConfig.model_validate_json(exported[0].read_text())
    mine = config.model_copy(update={"task": TextLM(dataset="mine", sequence_length=32)})
    write_config(tmp_path / "mine.json", mine)
    with pytest.raises(DataUnavailable, match="'mine' is not here"):
        train_config(tmp_path / "mine.json", **arguments)


def test_weights_that_are_missing_foreign_or_damaged_are_refused(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any], tmp_path: Path
) -> None:
    config = TrainingConfig.model_validate_json(exported[0].read_text())
    path = tmp_path / "config.json"
    weights = tmp_path / "weights.safetensors"

    def message() -> str:
        with pytest.raises(InvalidInput) as refused:
            train_config(path, **arguments, from_weights=True)
        assert refused.value.problems[0].pointer == "/weights"
        return refused.value.problems[0].message

    write_config(path, config.model_copy(update={"weights": None}))
    assert "comes without weights" in message()
    write_config(path, config)
    assert "cannot read" in message()
    weights.write_bytes(b"rubbish rubbish")
    assert "cannot read" in message()
    write_weights(weights, {"embedding.weight": torch.ones(2, 2)})
    assert "does not hold the weights" in message()
    assert not arguments["out"].exists()


@pytest.mark.parametrize("steps", [0, -5])
def test_no_steps_are_refused(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any], steps: int
) -> None:
    with pytest.raises(InvalidInput, match="too few"):
        train_config(exported[0], **arguments, steps=steps)


def test_a_stop_takes_effect_at_once(
    exported: tuple[Path, dict[str, float]], arguments: dict[str, Any], text: Task
) -> None:
    assert build_task(text.config, dataset=None, cache=arguments["cache"])  # cached by now
    began = time.monotonic()
    outcome = train_config(
        exported[0],
        **arguments,
        steps=1_000_000,
        should_stop=lambda: time.monotonic() - began > 0.5,
    )
    assert time.monotonic() - began < 2
    assert not outcome.finished
