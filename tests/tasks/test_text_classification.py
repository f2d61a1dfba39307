from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from torch import Tensor

from nas.catalogue.tasks import PYTHON_PACKAGES, TextClassification
from nas.errors import DataUnavailable
from nas.tasks import build_task
from nas.tasks.base import Task
from search_spaces.errors import InvalidInput

N = 32


def written(folder: Path, rows: list[tuple[str, str]], name: str = "data") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in rows))
    return path


def films(count: int) -> list[tuple[str, str]]:
    return [(f"film {i} is {kind}", kind) for i in range(count) for kind in ("bad", "good")]


def build(path: Path, classes: int = 2) -> Task:
    config = TextClassification(dataset="films", classes=classes, sequence_length=N)
    return build_task(config, dataset=path, cache=path.parent)


def texts(task: Task, split: str) -> list[tuple[str, int]]:
    """Texts and targets of a held-out part, or of one epoch of the training part."""
    if split == "train":
        seen = {}
        for step in range(400):
            batch = task.training_batch(step, 8, 0)
            pairs = zip(_words(batch.tokens), batch.targets.tolist(), strict=True)
            seen.update(dict.fromkeys(pairs))
        return list(seen)
    found = []
    for batch in task.evaluation_batches(split, 8, None):  # type: ignore[arg-type]
        found += zip(_words(batch.tokens), batch.targets.tolist(), strict=True)
    return found


def _words(tokens: Tensor) -> list[str]:
    return [bytes(t - 1 for t in row if t).decode("latin-1") for row in tokens.tolist()]


def test_texts_come_as_bytes_with_the_place_of_their_label(tmp_path: Path) -> None:
    rows = films(50)
    task = build(written(tmp_path, rows))
    parts = {split: texts(task, split) for split in ("train", "validation", "test")}
    every = [pair for part in parts.values() for pair in part]
    assert sorted(every) == sorted((t, int(x == "good")) for t, x in rows)
    for split in ("validation", "test"):
        assert Counter(target for _, target in parts[split]) == {0: 5, 1: 5}


def test_more_data_moves_no_text_out_of_training_into_a_held_out_part_unseen(
    tmp_path: Path,
) -> None:
    few, many = (build(written(tmp_path, films(n), str(n))) for n in (40, 44))
    held_out = {t for split in ("validation", "test") for t, _ in texts(few, split)}
    later = {t for split in ("validation", "test") for t, _ in texts(many, split)}
    assert len(held_out & later) >= 0.7 * len(held_out)


def test_a_text_that_comes_again_counts_once(tmp_path: Path) -> None:
    once = build(written(tmp_path, films(20), "once"))
    twice = build(written(tmp_path, films(20) * 2, "twice"))
    assert once.data_hash == twice.data_hash


def test_long_texts_are_cut(tmp_path: Path) -> None:
    task = build(written(tmp_path, [(t + "!" * 100, x) for t, x in films(20)]))
    batch = task.training_batch(0, 4, 0)
    assert batch.tokens.shape == (4, N)
    assert batch.mask is None


@pytest.mark.parametrize(
    ("rows", "classes", "pointer", "message"),
    [
        (films(20), 3, "/task/classes", "2 labels, not 3: bad, good"),
        ([*films(20), ("odd", "ugly")], 3, "/task/dataset", "'ugly' has 1 different texts"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, rows: list[tuple[str, str]], classes: int, pointer: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        build(written(tmp_path, rows), classes)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert message in problem.message


def test_pieces_of_source_are_told_apart_by_their_package(tmp_path: Path) -> None:
    task = build_task(TextClassification(), dataset=None, cache=tmp_path)
    for split in ("validation", "test"):
        counts = Counter(target for _, target in texts(task, split))
        assert set(counts) == set(range(len(PYTHON_PACKAGES)))
    overlap = {t for t, _ in texts(task, "validation")} & {t for t, _ in texts(task, "test")}
    assert not overlap


def test_source_has_as_many_labels_as_packages() -> None:
    with pytest.raises(ValueError, match="has 6 labels"):
        TextClassification(classes=2)


def test_data_that_are_not_here_are_asked_for(tmp_path: Path) -> None:
    config = TextClassification(dataset="films", classes=2)
    with pytest.raises(DataUnavailable, match="'films' are not here"):
        build_task(config, dataset=None, cache=tmp_path)
