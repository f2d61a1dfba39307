"""What an actor makes of a segment: finished, interrupted, failed, or disturbed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nas.catalogue.tasks import ImageClassification, TextLM
from nas.errors import TrialFailed
from nas.schemas import TrainingRecipe
from nas.tasks import build_task
from nas.tasks.base import Task
from search_spaces import Architecture
from workers import segments
from workers.segments import Assignment, Bench, Outcome, SegmentTrainable, StopFlag, _train

ARCHITECTURE = Architecture.model_validate(
    {
        "width": 16,
        "position": "learned",
        "layers": [{"attention": {"type": "linear"}, "feedforward": {"type": "dense"}, "heads": 2}],
    }
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        task=ImageClassification(),
        dataset=None,
        cache=tmp_path / "cache",
        recipe=TrainingRecipe(batch_size=4, evaluation_batches=1),
        max_steps=9,
        threads=1,
        device="cpu",
        stop_file=tmp_path / "stop",
    )


@pytest.fixture
def task(bench: Bench) -> Task:
    return build_task(bench.task, dataset=None, cache=bench.cache)


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    checkpoint = str(tmp_path / "trial.pt")
    return Assignment("trial", 0, 3, 0, ARCHITECTURE.canonical_json(), checkpoint)


def train(bench: Bench, assignment: Assignment, task: Task) -> Outcome:
    with StopFlag(bench.stop_file, seconds=0.01) as flag:
        return _train(bench, assignment, task, flag)


def test_rungs_follow_each_other(bench: Bench, assignment: Assignment, task: Task) -> None:
    first = train(bench, assignment, task)
    second = train(bench, replace(assignment, rung=1, to_steps=9), task)
    assert (first.kind, first.steps) == ("finished", 3)
    assert (second.kind, second.steps) == ("finished", 9)
    assert set(second.metrics) == set(bench.task.metrics)
    assert Outcome.from_result(second.to_result()) == second


def test_what_the_test_split_gave_travels_apart(
    bench: Bench, assignment: Assignment, task: Task
) -> None:
    done = train(bench, replace(assignment, test_batches=2), task)
    assert done.test.keys() == done.metrics.keys()
    assert done.test["loss"] != done.metrics["loss"]
    assert Outcome.from_result(done.to_result()) == done


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_corrupt_checkpoint_costs_time_and_nothing_else(
    bench: Bench, assignment: Assignment, task: Task, damage: bytes | None
) -> None:
    whole = train(bench, replace(assignment, to_steps=9), task)
    path = Path(assignment.checkpoint)
    path.unlink()
    train(bench, assignment, task)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    again = train(bench, replace(assignment, rung=1, to_steps=9), task)
    assert again.kind == "finished"
    assert again.metrics == whole.metrics


def test_a_disk_that_refuses_is_not_the_trials_fault(
    bench: Bench, assignment: Assignment, task: Task, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    outcome = train(bench, replace(assignment, checkpoint=str(blocked / "trial.pt")), task)
    assert outcome.kind == "disturbed"
    assert outcome.reason is not None
    assert "blocked" in outcome.reason


def test_data_that_change_under_a_job_disturb_until_they_are_back(
    bench: Bench, assignment: Assignment, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    content = b"some text to train on, " * 200
    text.write_bytes(content)
    config = TextLM(name="text_lm", dataset="own", sequence_length=16)
    known = build_task(config, dataset=text, cache=bench.cache).data_hash
    bench = replace(bench, task=config, dataset=text, data_hash=known)
    text.write_bytes(content.upper())
    # without Ray: what Tune does with an actor's trainable
    actor = SegmentTrainable.__new__(SegmentTrainable)
    actor.setup(asdict(assignment), bench)

    def outcome() -> Outcome:
        return Outcome.from_result(actor.step())

    changed = outcome()
    text.write_bytes(content[:10])
    short = outcome()
    text.unlink()
    gone = outcome()
    assert {changed.kind, short.kind, gone.kind} == {"disturbed"}
    assert changed.reason == f"the data have changed since the job began: {text}"
    assert "too few" in (short.reason or "")
    assert str(text) in (gone.reason or "")
    text.write_bytes(content)
    assert outcome().kind == "finished"


def test_a_trial_that_fails_says_why(
    bench: Bench, assignment: Assignment, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise TrialFailed("diverged at step 2: the loss is not finite")

    monkeypatch.setattr("workers.segments.run_segment", diverge)
    outcome = train(bench, assignment, task)
    assert outcome.kind == "failed"
    assert outcome.reason == "diverged at step 2: the loss is not finite"


def test_told_to_stop_it_keeps_what_it_has(
    bench: Bench, assignment: Assignment, task: Task
) -> None:
    endless = replace(assignment, to_steps=100_000)
    with raised_after(bench.stop_file, seconds=0.5):
        outcome = train(replace(bench, max_steps=100_000), endless, task)
    assert outcome.kind == "interrupted"
    assert outcome.steps > 0
    assert Path(assignment.checkpoint).exists()


@contextmanager
def raised_after(path: Path, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, path.touch)
    timer.start()
    try:
        yield
    finally:
        timer.join()


class Rising:
    """A counter that tells of three joules whenever it is asked."""

    def joules(self) -> float:
        return 3.0


@pytest.mark.parametrize(("counters", "joules"), [([Rising()], True), (None, False)])
def test_a_segment_tells_of_the_energy_that_counters_have_measured(
    bench: Bench,
    assignment: Assignment,
    monkeypatch: pytest.MonkeyPatch,
    counters: list[Rising] | None,
    joules: bool,
) -> None:
    monkeypatch.setattr(segments, "processors", lambda: counters)
    actor = SegmentTrainable.__new__(SegmentTrainable)
    actor.setup(asdict(assignment), bench)
    outcome = Outcome.from_result(actor.step())
    assert outcome.kind == "finished"
    if not joules:
        assert outcome.joules is outcome.metered_kwh is None
    else:
        assert outcome.joules is not None
        assert 0 < outcome.joules <= 3.0
        assert outcome.metered_kwh == pytest.approx(outcome.joules / 3.6e6)


def test_a_child_starts_from_its_parents_weights(
    bench: Bench, assignment: Assignment, task: Task, tmp_path: Path
) -> None:
    grown = train(bench, replace(assignment, to_steps=9), task)
    parent = {
        "trial": assignment.trial,
        "architecture": assignment.architecture,
        "checkpoint": assignment.checkpoint,
    }
    one = replace(assignment, trial="child", to_steps=1, checkpoint=str(tmp_path / "child.pt"))
    child = train(bench, replace(one, parent=parent), task).metrics["loss"]
    fresh = train(bench, replace(one, checkpoint=str(tmp_path / "fresh.pt")), task).metrics["loss"]
    ended = grown.metrics["loss"]
    assert abs(child - ended) < abs(child - fresh)
