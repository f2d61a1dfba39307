"""Scores: what a process keeps is always what a fresh look would find."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from nas.catalogue.metrics import METRICS
from nas.errors import NotFound
from nas.states import TrialState
from nas.store import scores, trials
from nas.store.scores import ScoreCache, Scores


def _same(one: Scores, other: Scores) -> bool:
    return one.seq == other.seq and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "metrics")
        for name in ("metrics", "complete", "measured", "homogeneous")
    )


def test_kept_scores_follow_every_change(lab: Any) -> None:
    job, cache, rng = lab.running(), ScoreCache(), random.Random(0)
    made: list[Any] = []
    for step in range(40):
        trial = rng.choice(made) if made and rng.random() < 0.6 else None
        if trial is None:
            made.append(lab.insert(job, step, costs={"parameters": float(step)}))
        elif lab.trial(trial.id).state == TrialState.WAITING:
            lab.train(job, trial, {"loss": rng.random()}, rung=rng.choice([0, 2]))
        else:
            with lab.store.write() as session:
                trials.set_metrics(session, trial.id, job.token, {"latency_ms": rng.random()})
        with lab.store.read() as session:
            assert _same(cache.scores(session, job.id), ScoreCache().scores(session, job.id))


def test_scores_say_what_the_trials_say(lab: Any) -> None:
    job = lab.running()
    for i in range(6):
        trial = lab.insert(job, i, costs={"parameters": 10.0 + i})
        if i < 4:
            lab.train(job, trial, {"loss": 1.0 / (i + 1)}, rung=i % 2 * 2)
        if i == 2:
            with lab.store.write() as session:
                trials.fail(session, trial.id, job.token, "diverged")
    with lab.store.read() as session:
        found = ScoreCache().scores(session, job.id)
    assert found.complete.tolist() == [False, True, False, True, False, False]
    assert found.measured.tolist() == [True, True, False, True, False, False]
    assert found.homogeneous.tolist() == [True, False, False, True, False, False]
    assert found.column("parameters").tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    assert found.metrics.shape == (6, len(METRICS))
    np.testing.assert_array_equal(found.column("loss"), [1.0, 0.5, 1 / 3, 0.25, np.nan, np.nan])


def test_verified_scores_are_the_means_over_fresh_seeds(lab: Any) -> None:
    job = lab.running()
    made = [lab.insert(job, i, costs={"parameters": 10.0}) for i in range(3)]
    for trial in made:
        lab.train(job, trial, {"loss": 1.0})
    with lab.store.write() as session:
        for seed, loss in ((1, 1.5), (2, 2.5)):
            trials.add_verification(session, made[1].id, job.token, seed, {"loss": loss})
    with lab.store.read() as session:
        known = ScoreCache().scores(session, job.id)
        found = scores.verified_only(session, job.id, known)
    assert found.complete.tolist() == [False, True, False]
    assert found.column("loss").tolist() == [1.0, 2.0, 1.0]
    assert found.column("parameters")[1] == 10.0
    # t = 12.706 of one degree of freedom; nothing tells of the spread of what is not verified
    expected = [np.inf, 12.706 * 0.5**0.5 / 2**0.5, np.inf]
    np.testing.assert_allclose(found.uncertainty("loss"), expected, rtol=1e-4)
    assert found.uncertainty("parameters").tolist() == [0.0, 0.0, 0.0]
    assert known.uncertainty("loss").tolist() == [0.0, 0.0, 0.0]
    assert scores.joined([found, found]).uncertainty("loss")[4] == found.uncertainty("loss")[1]
    assert scores.joined([known, known]).half_widths is None
    assert known.column("loss").tolist() == [1.0, 1.0, 1.0]


def test_threads_may_share_what_is_kept(lab: Any) -> None:
    job, cache = lab.running(), ScoreCache()

    def look(_: int) -> bool:
        with lab.store.read() as session:
            return _same(cache.scores(session, job.id), ScoreCache().scores(session, job.id))

    with ThreadPoolExecutor(4) as pool:
        looks = pool.map(look, range(40))
        for i in range(15):
            lab.insert(job, i)
        assert all(looks)


def test_only_the_last_jobs_are_kept(lab: Any) -> None:
    cache = ScoreCache(capacity=2)
    made = [lab.running() for _ in range(3)]
    for job in made:
        lab.insert(job)
        with lab.store.read() as session:
            assert len(cache.scores(session, job.id).complete) == 1
    with lab.store.read() as session:
        assert len(cache.scores(session, made[0].id).complete) == 1


def test_no_job_no_scores(lab: Any) -> None:
    with pytest.raises(NotFound), lab.store.read() as session:
        ScoreCache().scores(session, "job_unknown")


def test_trials_come_in_the_order_of_the_numbers(lab: Any) -> None:
    job = lab.running()
    for i in range(4):
        lab.insert(job, i)
    with lab.store.read() as session:
        assert [t.number for t in scores.numbered(session, job.id, [3, 1, 4])] == [3, 1, 4]
        assert scores.numbered(session, job.id, []) == []
