from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from nas.catalogue.tasks import TextLM
from nas.errors import TrialFailed, Unsupported
from nas.export import ExportedTrial, TrainingConfig, read_config, unpack, write
from nas.export.archive import MEMBERS
from nas.export.formats import FORMATS
from nas.schemas import ExportRequest, TrainingRecipe
from nas.tasks import build_task
from nas.training.checkpoint import load_weights, save_checkpoint
from nas.training.full import train_config
from nas.training.loop import Trainer
from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidInput

LAYER = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 2}
ARCHITECTURE = Architecture.model_validate({"width": 16, "layers": [LAYER]})
RECIPE = TrainingRecipe(batch_size=16, learning_rate=0.01, evaluation_batches=4)
DOCUMENT = TrainingConfig(
    architecture=ARCHITECTURE,
    task=TextLM(sequence_length=32),
    recipe=RECIPE,
    max_steps=10,
    seed=2,
    data_hash="f" * 64,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    task = build_task(TextLM(sequence_length=32), dataset=None, cache=folder)
    trainer = Trainer(ARCHITECTURE, task, RECIPE, max_steps=10, seed=2, device=torch.device("cpu"))
    trainer.run(10)
    save_checkpoint(folder / "trial.pt", trainer.checkpoint())
    return folder / "trial.pt"


def test_every_format_that_can_be_asked_for_is_written_here() -> None:
    assert set(FORMATS) == set(get_args(ExportRequest.model_fields["format"].annotation))
    assert set(MEMBERS) == set(FORMATS)


def test_an_export_carries_configuration_and_weights(checkpoint: Path, tmp_path: Path) -> None:
    write("config", tmp_path / "t.zip", ExportedTrial(DOCUMENT, checkpoint))
    assert os.listdir(tmp_path) == ["t.zip"]
    config = unpack(tmp_path / "t.zip", tmp_path / "deep" / "winner")
    assert sorted(os.listdir(config.parent)) == ["config.json", "weights.safetensors"]
    read = read_config(config)
    assert read == DOCUMENT.model_copy(update={"weights": "weights.safetensors"})
    weights = load_file(config.parent / "weights.safetensors")
    expected = load_weights(checkpoint)
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_what_is_unpacked_trains_on_from_the_trial(checkpoint: Path, tmp_path: Path) -> None:
    write("config", tmp_path / "t.zip", ExportedTrial(DOCUMENT, checkpoint))
    outcome = train_config(
        unpack(tmp_path / "t.zip", tmp_path / "winner"),
        out=tmp_path / "out",
        cache=tmp_path,
        from_weights=True,
        steps=60,
        device="cpu",
    )
    assert outcome.validation_before["loss"] < 5.4
    assert outcome.validation_after["loss"] < outcome.validation_before["loss"] - 0.5


def test_without_a_checkpoint_there_is_the_configuration_alone(tmp_path: Path) -> None:
    write("config", tmp_path / "t.zip", ExportedTrial(DOCUMENT))
    config = unpack(tmp_path / "t.zip", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "t.zip"]
    assert read_config(config).weights is None


def test_the_same_export_is_the_same_file(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write("config", tmp_path / name, ExportedTrial(DOCUMENT, checkpoint))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_corrupt_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "trial.pt").write_bytes(b"rubbish")
    with pytest.raises(TrialFailed, match="corrupt checkpoint"):
        write("config", tmp_path / "t.zip", ExportedTrial(DOCUMENT, tmp_path / "trial.pt"))
    assert os.listdir(tmp_path) == ["trial.pt"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="'gguf'"):
        write("gguf", tmp_path / "t.zip", ExportedTrial(DOCUMENT))


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"weights.safetensors": b""},
        {"config.json": b"{}", "../escaped": b"x"},
        {"config.json": b"{}", "/escaped": b"x"},
        {"config.json": b"{}", "weights.safetensors": b"", "run.sh": b"x"},
        {"config.json": b" " * (2 << 20)},
    ],
    ids=lambda m: "+".join(m) or "nothing",
)
def test_other_members_are_refused_before_anything_is_written(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    bad = archive(tmp_path / "bad.zip", members)
    with pytest.raises(InvalidInput, match=r"bad\.zip is not an export"):
        unpack(bad, tmp_path / "folder")
    assert os.listdir(tmp_path / "folder") == []
    assert (
        os.listdir(tmp_path / "folder" / "..") == ["folder", "bad.zip"]
        or not (tmp_path / "escaped").exists()
    )


@pytest.mark.parametrize(
    "name",
    [
        "../paretoformer_x.py",
        "setup.py",
        "weights.safetensors",
        "paretoformer.py.exe",
        "a/config.json",
    ],
)
def test_other_members_of_a_folder_for_transformers_are_refused(tmp_path: Path, name: str) -> None:
    whole = dict.fromkeys(("README.md", "config.json", "model.safetensors"), b"{}")
    good = archive(
        tmp_path / "good.zip", whole | {"modeling_paretoformer.py": b"", "paretoformer_a_b.py": b""}
    )
    unpack(good, tmp_path / "folder", "huggingface")
    with pytest.raises(InvalidInput, match="is not an export"):
        unpack(
            archive(tmp_path / "bad.zip", whole | {name: b""}), tmp_path / "other", "huggingface"
        )
    assert os.listdir(tmp_path / "other") == []
    with pytest.raises(InvalidInput, match="is not an export"):
        unpack(
            archive(tmp_path / "less.zip", {"config.json": b"{}"}), tmp_path / "o", "huggingface"
        )


def test_a_compressed_member_is_refused(tmp_path: Path) -> None:
    bomb = archive(
        tmp_path / "bomb.zip",
        {"config.json": b"{}", "weights.safetensors": b"\0" * (1 << 24)},
        zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(InvalidInput, match="impossible size"):
        unpack(bomb, tmp_path / "folder")


def test_a_damaged_archive_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    write("config", path, ExportedTrial(DOCUMENT, checkpoint))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for content in (b"", b"PK", whole[:-30], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="is not an export"):
            unpack(path, tmp_path / "folder")
        assert not (tmp_path / "folder" / "config.json").exists()


def test_reading_an_export_takes_no_torch(tmp_path: Path) -> None:
    write("config", tmp_path / "t.zip", ExportedTrial(DOCUMENT))
    program = (
        "import sys; from pathlib import Path; from nas.export import unpack, read_config;"
        "read_config(unpack(Path(sys.argv[1]), Path(sys.argv[2])));"
        "import json; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "t.zip", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"torch", "ray", "sklearn", "safetensors"} & set(json.loads(done.stdout))
