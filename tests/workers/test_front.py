"""The front as it is timed at the end, on a machine whose coefficients are known."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from nas.errors import LeaseLost
from nas.jobs import Jobs
from nas.latency import Mode
from nas.schemas import Front, JobRequest
from nas.settings import Settings
from nas.states import TrialState
from nas.store import Store, leases, measurements
from nas.store import trials as trial_rows
from nas.store.migrate import upgrade
from nas.store.records import TrialRecord
from search_spaces import Architecture, load_space
from tests.latency.machines import pool, table_of
from workers.front import MODES, FrontTiming
from workers.measuring import Subject, Timed

REQUEST: dict[str, Any] = {
    "task": {"name": "text_lm", "sequence_length": 64},
    "space": "efficient-lm",
    "objectives": ["loss", "latency_ms"],
    "training": {"batch_size": 4},
    "fidelity": {"max_steps": 3, "min_steps": 3},
}


class Bed:
    """A job whose search is over: fully trained trials, all latencies predicted."""

    def __init__(self, folder: Path, bound: float | None = None, count: int = 24) -> None:
        settings = Settings(data=folder)
        upgrade(settings.database_url)
        self.store = Store(settings.database_url)
        self.jobs = Jobs(self.store, settings)
        constraints = [] if bound is None else [{"metric": "latency_ms", "max": bound}]
        request = JobRequest.model_validate(REQUEST | {"constraints": constraints})
        self.job = self.jobs.submit(request)[0].id
        with self.store.write() as session:
            claimed = leases.claim_job(session, "worker", 600.0)
        assert claimed is not None
        self.token = claimed.token
        self.table = table_of(pool("efficient-lm"), request.task.shape(), 4)
        self.timed: list[str] = []
        space, rng = load_space("efficient-lm"), random.Random(5)
        for number in range(count):
            self._train(space.sample(rng), number)

    def _train(self, arch: Architecture, number: int) -> None:
        loss = 3.0 + 1.0 / (1 + self.table.predict(arch)) + 0.001 * number
        with self.store.write() as session:
            record = trial_rows.insert_started(
                session,
                self.job,
                self.token,
                architecture=arch,
                origin="test",
                seed=0,
                costs=self.table.metrics(arch),
            )
            trial_rows.finish_rung(
                session,
                record.id,
                self.token,
                rung=0,
                steps=3,
                metrics={"loss": loss, "accuracy": 0.1, "expected_depth": 1.0},
                training_seconds=1.0,
                evaluation_seconds=0.1,
                state=TrialState.COMPLETED,
            )

    def front(self) -> Front:
        return self.jobs.front(self.job)

    def trials(self) -> dict[str, TrialRecord]:
        with self.store.read() as session:
            return {t.id: t for t in trial_rows.all(session, self.job)}

    def measured(self) -> dict[tuple[str, str], measurements.MeasurementRecord]:
        with self.store.read() as session:
            rows = measurements.of_job(session, self.job)
        return {(row.trial_id, row.metric): row for row in rows}

    def timing(self, token: int | None = None) -> FrontTiming:
        return FrontTiming(
            self.store,
            self.job,
            token or self.token,
            self.table,
            front=self.front,
            subjects=self.subjects,
            draining=lambda: False,
        )

    def subjects(self, trials: Collection[str]) -> list[Subject]:
        known = self.trials()
        return [
            Subject(t, Architecture.model_validate(known[t].architecture), None)
            for t in sorted(trials)
        ]

    def machine(
        self, slower: Callable[[Architecture], float], alone: bool = True, pace: float = 1.0
    ) -> Callable[[Sequence[Subject]], Timed]:
        """Takes so many times as long as is predicted; all of it at that pace on that day."""

        def time(subjects: Sequence[Subject]) -> Timed:
            self.timed += [subject.trial for subject in subjects]
            milliseconds: dict[str, dict[Mode, float]] = {
                s.trial: {
                    mode: pace * slower(s.architecture) * self.table.predict(s.architecture, mode)
                    for mode in self.table.modes
                }
                for s in subjects
            }
            return Timed(milliseconds, pace * self.table.anchor_ms, alone)

        return time


def performs(arch: Architecture) -> bool:
    return any(layer.attention.type == "performer" for layer in arch.layers)


def slow_performers(arch: Architecture) -> float:
    return 2.0 if performs(arch) else 1.0


def test_no_member_of_the_front_is_only_predicted(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.timing().run(bed.machine(slow_performers))
    found, trials = bed.measured(), bed.trials()
    front = bed.front()
    for member in [*front.items, *front.homogeneous]:
        for metric in ("latency_ms", "step_latency_ms"):
            row = found[member.id, metric]
            assert row.measured == pytest.approx(trials[member.id].metrics[metric])
            assert row.alone
        batch = 4 * 64
        latency = member.metrics["latency_ms"]
        assert member.metrics["throughput"] == pytest.approx(1e3 * batch / latency)
    assert len(bed.timed) == len(set(bed.timed)) < len(trials)


def test_what_breaks_the_bound_when_it_is_measured_leaves_the_front(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "all")
    bound = sorted(t.metrics["latency_ms"] for t in bed.trials().values())[12]
    bed = Bed(tmp_path / "bounded", bound)
    before = {t.id for t in bed.front().items}
    bed.timing().run(bed.machine(lambda arch: 1.3))
    front = bed.front()
    left = before - {t.id for t in front.items}
    assert front.items
    assert any(bed.measured()[trial, "latency_ms"].measured > bound for trial in left)
    for member in [*front.items, *front.homogeneous]:
        assert bed.measured()[member.id, "latency_ms"].measured <= bound


def test_predictions_are_kept_beside_measurements(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    said = {trial: record.metrics for trial, record in bed.trials().items()}
    bed.timing().run(bed.machine(slow_performers, alone=False))
    adaptive = 0
    for (trial, metric), row in bed.measured().items():
        arch = Architecture.model_validate(bed.trials()[trial].architecture)
        assert not row.alone
        if arch.halting.adaptive:  # its worst case was known, which is no prediction
            adaptive += 1
            assert (row.predicted, row.low, row.high) == (None, None, None)
        else:
            assert row.predicted == said[trial][metric]
            assert row.predicted is not None
            assert (row.low, row.high) == bed.table.interval(MODES[metric], row.predicted)
    assert adaptive


def test_what_was_measured_corrects_the_others(tmp_path: Path) -> None:
    bed = Bed(tmp_path, count=60)
    said = bed.trials()
    corrected = bed.timing().run(bed.machine(slow_performers))
    assert corrected is not None
    rest = [t for t in bed.trials().values() if t.id not in bed.timed]
    performers, others = [], []
    for trial in rest:
        arch = Architecture.model_validate(trial.architecture)
        ratio = trial.metrics["latency_ms"] / said[trial.id].metrics["latency_ms"]
        (performers if performs(arch) else others).append(ratio)
        assert trial.metrics["latency_ms"] == pytest.approx(corrected.predict(arch))
    assert statistics.mean(performers) > 1.1
    assert statistics.mean(performers) > 1.05 * statistics.mean(others)


def test_a_slow_day_is_divided_out(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    said = bed.trials()
    bed.timing().run(bed.machine(lambda arch: 1.0, pace=1.7))
    for (trial, metric), row in bed.measured().items():
        assert row.measured == pytest.approx(said[trial].metrics[metric])


def test_another_life_of_the_job_measures_only_what_is_left(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.timing().run(bed.machine(slow_performers))
    timed, rows = list(bed.timed), bed.measured()
    assert bed.timing().run(bed.machine(slow_performers)) is None
    assert bed.timed == timed
    assert bed.measured() == rows


def test_beside_other_work_no_table_is_handed_on(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    assert bed.timing().run(bed.machine(slow_performers, alone=False)) is None


def test_a_lost_lease_cannot_write(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    with pytest.raises(LeaseLost):
        bed.timing(token=bed.token + 1).run(bed.machine(slow_performers))
    assert not bed.measured()
