"""Timing verified members side by side."""

from __future__ import annotations

from pathlib import Path

from nas.catalogue.tasks import ImageClassification
from nas.schemas import TrainingRecipe
from search_spaces import Architecture
from workers.measuring import Subject
from workers.rounds import ROUNDS, _measure
from workers.segments import Bench


def architecture(width: int) -> Architecture:
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 2}
    return Architecture.model_validate(
        {"width": width, "position": "learned", "layers": [layer, layer]}
    )


def test_every_member_is_in_every_round(tmp_path: Path) -> None:
    bench = Bench(
        task=ImageClassification(),
        dataset=None,
        cache=tmp_path / "cache",
        recipe=TrainingRecipe(batch_size=4),
        max_steps=9,
        threads=1,
        device="cpu",
        stop_file=tmp_path / "stop",
    )
    subjects = [Subject(f"trial_{width}", architecture(width), None) for width in (16, 256)]
    rounds = _measure(subjects, bench, 60.0, 0)
    assert rounds.milliseconds.keys() == {"trial_16", "trial_256"}
    small, large = (rounds.milliseconds[f"trial_{width}"] for width in (16, 256))
    assert len(small) == len(large) == ROUNDS
    assert sum(small) < sum(large)
    assert rounds.seconds > 0
    hurried = _measure(subjects, bench, 0.0, 0)
    assert 1 <= len(hurried.milliseconds["trial_16"]) < ROUNDS
