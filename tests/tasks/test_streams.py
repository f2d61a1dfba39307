"""Texts that are read on and on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.catalogue.tasks import TextLM
from nas.tasks import build_task
from nas.tasks.streams import StreamedTask, evaluation_segments, training_segments


@pytest.mark.parametrize(("size", "rows", "length"), [(100, 3, 8), (1000, 4, 16), (17, 1, 16)])
def test_rows_go_on_until_all_begin_anew(size: int, rows: int, length: int) -> None:
    before = None
    restarts = 0
    for step in range(3 * size // (rows * length)):
        starts, fresh = training_segments(step, rows, 5, size=size, length=length)
        assert starts.shape == (rows,)
        assert starts.min() >= 0
        assert starts.max() + length + 1 <= size
        if before is not None and not fresh:
            assert (starts == before + length).all()
        restarts += fresh
        before = starts
    assert restarts >= 2
    assert training_segments(0, rows, 5, size=size, length=length).fresh


def test_lanes_cover_the_text() -> None:
    read = np.zeros(1000, dtype=int)
    step = 0
    while True:
        starts, fresh = training_segments(step, 4, 1, size=1000, length=16)
        if fresh and step:
            break
        for start in starts:
            read[start : start + 16] += 1
        step += 1
    assert read.max() == 1
    assert read.sum() > 1000 - 4 * 16


def test_each_reading_is_shifted_by_the_seed() -> None:
    def start(reading: int, seed: int) -> int:
        return int(training_segments(reading * 15, 4, seed, size=1000, length=16).starts[0])

    assert training_segments(15, 4, 0, size=1000, length=16).fresh
    assert len({start(r, s) for r in range(4) for s in range(4)}) > 4
    assert start(2, 3) == start(2, 3)


def test_a_text_shorter_than_the_batch() -> None:
    for step in range(5):
        starts, fresh = training_segments(step, 8, 0, size=40, length=16)
        assert fresh
        assert starts.max() + 17 <= 40


@pytest.mark.parametrize(("size", "rows"), [(100, 3), (129, 4), (20, 8), (17, 1)])
def test_evaluation_reads_every_segment_once(size: int, rows: int) -> None:
    length, seen = 8, []
    before = None
    for starts, fresh in evaluation_segments(rows, None, size=size, length=length):
        assert fresh == (before is None)
        if before is not None:
            assert (starts == before[: len(starts)] + length).all()
        before = starts
        seen += starts.tolist()
    assert sorted(seen) == list(range(0, (size - 1) // length * length, length))
    limited = list(evaluation_segments(rows, 2, size=size, length=length))
    assert len(limited) <= 2


def test_the_text_task_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(bytes(range(256)) * 40)
    task = build_task(TextLM(sequence_length=32, dataset="mine"), dataset=path, cache=tmp_path)
    assert isinstance(task, StreamedTask)
    first, second = (task.stream_batch(step, 3, 7) for step in range(2))
    assert (first.fresh, second.fresh) == (True, False)
    assert torch.equal(first.batch.targets[:, -1], second.batch.tokens[:, 0])
    assert torch.equal(first.batch.targets[:, :-1], first.batch.tokens[:, 1:])
    batches = list(task.evaluation_stream("test", 3, 4))
    for earlier, later in pairwise(batches):
        rows = later.batch.tokens.shape[0]
        assert torch.equal(earlier.batch.targets[:rows, -1], later.batch.tokens[:, 0])
