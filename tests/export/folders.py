"""Exported folders for ``transformers``, and what is seen of them where this project is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from nas.catalogue.tasks import TaskConfig, TextClassification, TextLM
from nas.export import ExportedTrial, Provenance, TrainingConfig, unpack, write
from nas.models import Transformer, build_model
from nas.schemas import TrainingRecipe
from nas.training.checkpoint import Checkpoint, save_checkpoint
from search_spaces.architecture import Architecture

N = 48
LM = TextLM(sequence_length=N)
CLASSES = TextClassification(sequence_length=N)
SCRIPT = Path(__file__).with_name("foreign.py")


def layer(attention: Any, feedforward: Any = "dense", heads: int = 2) -> dict[str, Any]:
    def spec(given: Any) -> dict[str, Any]:
        return given if isinstance(given, dict) else {"type": given}

    return {"attention": spec(attention), "feedforward": spec(feedforward), "heads": heads}


def architecture(*layers: dict[str, Any], **rest: Any) -> Architecture:
    return Architecture.model_validate({"width": 16, "layers": layers, **rest})


FULL = layer("full")


def document(arch: Architecture, task: TaskConfig) -> TrainingConfig:
    return TrainingConfig(
        architecture=arch,
        task=task,
        recipe=TrainingRecipe(),
        max_steps=10,
        data_hash="f" * 64,
        provenance=Provenance(job="job_1", trial="trial_1", metrics={"loss": 1.5}),
    )


def model_of(arch: Architecture, task: TaskConfig) -> Transformer:
    torch.manual_seed(3)
    shape = task.shape()
    return build_model(
        arch,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        max_length=shape.sequence_length,
        causal=shape.causal,
        head=shape.head,
    ).eval()


def exported(folder: Path, arch: Architecture, task: TaskConfig, **rest: Any) -> Transformer:
    """Puts the export of a model into a folder, and gives the model."""
    model = model_of(arch, task)
    folder.mkdir(parents=True)
    checkpoint = folder.with_suffix(".pt")
    save_checkpoint(checkpoint, Checkpoint("any", 10, model.state_dict(), None))
    archive = folder.with_suffix(".zip")
    write("huggingface", archive, ExportedTrial(document(arch, task), checkpoint, **rest))
    unpack(archive, folder, "huggingface")
    return model


def abroad(what: str, folder: Path, *folders: Path) -> dict[str, Any]:
    """What ``foreign.py`` answers."""
    own = {name: str(folder.parent / "hf") for name in ("HF_HOME", "HF_MODULES_CACHE")}
    done = subprocess.run(
        [sys.executable, SCRIPT, what, folder, *folders],
        cwd=folder.parent,
        env={**os.environ, **own, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
