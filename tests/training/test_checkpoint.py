from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from nas.errors import TrialFailed
from nas.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    trim_checkpoint,
)


def checkpoint() -> Checkpoint:
    model = torch.nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(30)).sum().backward()
    optimizer.step()
    return Checkpoint("me", 7, model.state_dict(), optimizer.state_dict(), {"seconds": 1.5})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, checkpoint())
    return path


def test_it_reads_back_what_was_written(tmp_path: Path) -> None:
    written = checkpoint()
    save_checkpoint(tmp_path / "deep" / "trial.pt", written)
    read = load_checkpoint(tmp_path / "deep" / "trial.pt")
    assert (read.identity, read.steps, read.notes) == ("me", 7, {"seconds": 1.5})
    assert all(read.model[name].equal(tensor) for name, tensor in written.model.items())
    assert read.optimizer is not None
    assert written.optimizer is not None
    assert read.optimizer["param_groups"] == written.optimizer["param_groups"]
    for index, state in written.optimizer["state"].items():
        assert all(read.optimizer["state"][index][k].equal(v) for k, v in state.items())


def test_nothing_else_is_left_in_the_folder(saved: Path) -> None:
    save_checkpoint(saved, checkpoint())
    assert os.listdir(saved.parent) == ["trial.pt"]


def test_a_failed_write_leaves_the_old_one(saved: Path) -> None:
    before = saved.read_bytes()
    unpicklable = Checkpoint("me", 8, {}, {"hook": lambda: None})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(saved, unpicklable)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["trial.pt"]


def test_a_cut_or_foreign_file_is_corrupt(saved: Path) -> None:
    whole = saved.read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-10]):
        saved.write_bytes(content)
        with pytest.raises(TrialFailed, match="corrupt checkpoint"):
            load_checkpoint(saved)


def test_one_flipped_bit_anywhere_is_found_or_harmless(saved: Path) -> None:
    whole, sound = saved.read_bytes(), load_checkpoint(saved)
    found = 0
    for place in range(0, len(whole), 97):
        content = bytearray(whole)
        content[place] ^= 0x10
        saved.write_bytes(content)
        try:
            read = load_checkpoint(saved)
        except TrialFailed:
            found += 1
        else:  # in padding between members
            assert all(read.model[name].equal(tensor) for name, tensor in sound.model.items())
    assert found > 0.5 * len(whole) / 97


def test_a_file_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"version": 1, "model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(TrialFailed, match="corrupt checkpoint"):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_another_version_is_refused(saved: Path) -> None:
    torch.save({"version": 99, "identity": "me"}, saved)
    with pytest.raises(TrialFailed, match="another version"):
        load_checkpoint(saved)


def test_a_missing_one_is_no_failure_of_the_trial(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


def test_trimming_keeps_the_weights_and_drops_the_rest(saved: Path) -> None:
    weights, size = load_weights(saved), saved.stat().st_size
    trim_checkpoint(saved)
    trimmed = load_checkpoint(saved)
    assert trimmed.optimizer is None
    assert (trimmed.identity, trimmed.steps) == ("me", 7)
    assert all(load_weights(saved)[name].equal(tensor) for name, tensor in weights.items())
    assert saved.stat().st_size < 0.6 * size
    trim_checkpoint(saved)
    assert os.listdir(saved.parent) == ["trial.pt"]
