"""Every assembly of a model trains, is evaluated, and goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas.schemas import TrainingRecipe
from nas.tasks import Task
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.loop import Trainer

from .architectures import tiny

ASSEMBLIES: dict[str, dict[str, Any]] = {
    "reversible": {"residual": {"type": "reversible"}},
    "checkpointing": {"checkpointing": True},
    "early exit": {"halting": {"type": "early_exit"}},
    "depth-adaptive": {"halting": {"type": "depth_adaptive"}, "repeats": 2},
}


@pytest.mark.parametrize("fields", ASSEMBLIES.values(), ids=list(ASSEMBLIES))
def test_trains_and_goes_on_bit_for_bit(fields: dict[str, Any], text: Task, tmp_path: Path) -> None:
    def trainer() -> Trainer:
        recipe = TrainingRecipe(batch_size=4, learning_rate=0.01)
        device = torch.device("cpu")
        return Trainer(tiny(**fields), text, recipe, max_steps=20, seed=1, device=device)

    whole, part, resumed = trainer(), trainer(), trainer()
    whole.run(20)
    assert whole.evaluate("validation", 4)["loss"] < text.trivial_loss + 1
    part.run(7)
    save_checkpoint(tmp_path / "checkpoint", part.checkpoint())
    resumed.restore(load_checkpoint(tmp_path / "checkpoint"))
    resumed.run(20)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    metrics = resumed.evaluate("validation", 4)
    assert metrics == whole.evaluate("validation", 4)
    assert 1 <= metrics["expected_depth"] <= 2 * whole.model.arch.repeats
