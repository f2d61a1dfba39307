from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from nas.catalogue.tasks import ImageClassification
from nas.tasks import build_task
from nas.tasks.base import Task
from search_spaces.errors import InvalidInput


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return build_task(ImageClassification(), dataset=None, cache=tmp_path_factory.mktemp("cache"))


def everything(task: Task) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    parts = {}
    train = len(load_digits().target) - 2 * 269
    batch = task.training_batch(0, train, 0)
    parts["train"] = (batch.tokens, batch.targets)
    for split in ("validation", "test"):
        batches = list(task.evaluation_batches(split, 50, None))
        parts[split] = (
            torch.cat([b.tokens for b in batches]),
            torch.cat([b.targets for b in batches]),
        )
    return parts


def test_the_parts_hold_every_image_once_with_its_own_label(task: Task) -> None:
    images, labels = load_digits(return_X_y=True)
    expected = sorted((*map(int, x), int(y)) for x, y in zip(images, labels, strict=True))
    got = [
        (*tokens, target)
        for part in everything(task).values()
        for tokens, target in zip(part[0].tolist(), part[1].tolist(), strict=True)
    ]
    assert sorted(got) == expected


def test_every_digit_is_split_in_the_same_proportions(task: Task) -> None:
    parts = everything(task)
    counts = {name: torch.bincount(targets, minlength=10) for name, (_, targets) in parts.items()}
    total = sum(counts.values())
    assert (counts["train"] / total - 0.70).abs().max() < 0.01
    assert (counts["validation"] / total - 0.15).abs().max() < 0.005
    assert counts["validation"].equal(counts["test"])


def test_no_data_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no data of your own"):
        build_task(ImageClassification(), dataset=tmp_path / "x", cache=tmp_path)
