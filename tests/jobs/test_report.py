"""The trust report on rows with known answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nas.errors import NotFound
from nas.jobs.report import trust_report
from nas.reports import TrustReport
from nas.search.rungs import is_audited
from nas.states import JobState, TrialState
from nas.store import jobs, trials, verifications
from nas.store.records import JobRecord, TransferRecord, TrialRecord
from nas.store.tables import MeasurementRow

LOSSES = ("loss", "parameters")


def report(lab: Any, job: JobRecord) -> TrustReport:
    return trust_report(lab.store, job.id)


def searched(lab: Any, **changes: Any) -> JobRecord:
    request = {"objectives": LOSSES, "fidelity": {"audit": 1.0}, **changes}
    job: JobRecord = lab.running(**request)
    return job


def complete(
    lab: Any, job: JobRecord, curves: Sequence[Sequence[float]], sizes: Sequence[float] = ()
) -> list[TrialRecord]:
    """Trials with these losses at the rungs that they reached."""
    made = []
    with lab.together():
        for i, curve in enumerate(curves):
            size = sizes[i] if sizes else 1000.0 * (i + 1)
            trial = lab.insert(job, i, costs={"non_embedding_parameters": size})
            for rung, loss in enumerate(curve):
                trial = lab.train(job, trial, {"loss": loss}, rung=rung)
            made.append(trial)
    return made


def noisy(n: int, noise: float, seed: int = 0) -> tuple[list[list[float]], list[float]]:
    """Curves of n trials, the lower rungs noisier, and sizes that explain part of them."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(8, 12, n))
    final = 8 - 0.3 * np.log(sizes) + rng.normal(0, 0.3, n)
    early = [final + rng.normal(0, noise / 2**rung, n) for rung in (0, 1)]
    curves = np.stack([*early, final], axis=1).tolist()
    return curves, sizes.tolist()


def left_by_size(values: Any, sizes: Sequence[float]) -> Any:
    logs = np.log(sizes)
    return values - np.polyval(np.polyfit(logs, values, 1), logs)


def test_rungs_are_judged_by_audited_trials_and_by_all(lab: Any) -> None:
    job = searched(lab, fidelity={"audit": 0.5}, seed=4)
    curves, sizes = noisy(30, noise=0.5)
    made = complete(lab, job, curves, sizes)
    found = report(lab, job)
    drawn = [i for i, t in enumerate(made) if is_audited(t.number, 0.5, 4)]
    assert 10 <= len(drawn) < 30
    assert (found.audits.drawn, found.audits.completed) == (len(drawn), len(drawn))
    assert [(r.rung, r.steps) for r in found.rungs] == [(0, 30), (1, 90)]
    values = np.array(curves)
    for rung in found.rungs:
        for chosen, raw, beyond in (
            (drawn, rung.audited, rung.audited_beyond_size),
            (list(range(30)), rung.completed, rung.completed_beyond_size),
        ):
            early, final = values[chosen, rung.rung], values[chosen, 2]
            assert raw.n == beyond.n == len(chosen)
            assert not raw.too_few
            assert raw.spearman == pytest.approx(stats.spearmanr(early, final).statistic)
            assert raw.kendall == pytest.approx(stats.kendalltau(early, final).statistic)
            own = [sizes[i] for i in chosen]
            expected = stats.spearmanr(left_by_size(early, own), left_by_size(final, own))
            assert beyond.spearman == pytest.approx(expected.statistic)


def test_audits_that_ended_early_and_reused_trials_are_counted_as_what_they_are(lab: Any) -> None:
    job = searched(lab)
    made = complete(lab, job, [[3.0, 2.0, 1.0], [3.0, 2.0], [3.0]])
    with lab.store.write() as session:
        trials.fail(session, made[1].id, job.token, "diverged at step 120")
    lab.insert(job, 9, state=TrialState.REUSED, reused_from="x", metrics={"loss": 0.5}, rung=2)
    found = report(lab, job)
    assert (found.audits.share, found.audits.drawn, found.audits.completed) == (1.0, 3, 1)
    assert (found.reuse.trials, found.reuse.reused) == (4, 1)
    assert [(f.reason, f.trials) for f in found.failures] == [("diverged at step 120", 1)]
    assert any("1 of 3 trials drawn for the audit" in words for words in found.warnings)
    assert any("1 of 4 trials failed" in words for words in found.warnings)


def test_nothing_is_made_of_nothing(lab: Any) -> None:
    job = searched(lab)
    found = report(lab, job)
    for rung in found.rungs:
        for ranks in (rung.audited, rung.completed, rung.audited_beyond_size):
            assert (ranks.n, ranks.kendall, ranks.spearman, ranks.too_few) == (0, None, None, True)
    assert (found.costs, found.spreads, found.members, found.failures) == ([], [], [], [])
    assert found.time.share is None
    assert (found.neighbours.pairs, found.neighbours.alike) == (0, 0)
    assert found.warnings[0] == "The job is running: all figures are of what there is so far."
    with pytest.raises(NotFound):
        trust_report(lab.store, "job_unknown")


def test_few_audits_give_a_figure_that_says_so(lab: Any) -> None:
    job = searched(lab)
    complete(lab, job, noisy(5, noise=0.1)[0])
    found = report(lab, job)
    assert all(r.audited.n == 5 and r.audited.too_few for r in found.rungs)
    assert found.rungs[1].audited.kendall is not None
    assert any("fewer than 10" in words for words in found.warnings)
    assert not any("correlation of only" in words for words in found.warnings)


def test_ties_and_missing_values_make_no_order(lab: Any) -> None:
    job = searched(lab, objectives=["accuracy", "parameters"])
    with lab.together():
        for i in range(12):
            trial = lab.insert(job, i, costs={"non_embedding_parameters": 1000.0})
            lab.train(job, trial, {"loss": 2.0, "accuracy": 0.25}, rung=0)
            early = {"accuracy": 0.3 + 0.01 * i} if i % 3 else {"loss": 1.5}
            lab.train(job, trial, early, rung=1)
            lab.train(job, trial, {"accuracy": 0.5 + 0.01 * i}, rung=2)
    found = report(lab, job)
    assert found.metric == "accuracy"
    tied, partly = found.rungs
    assert (tied.audited.n, tied.audited.kendall, tied.audited.spearman) == (12, None, None)
    assert (partly.audited.n, partly.audited.spearman) == (8, pytest.approx(1.0))
    assert partly.audited_beyond_size.spearman == pytest.approx(1.0)  # one size explains nothing


def test_a_rung_that_ranks_badly_is_warned_of_and_a_good_one_is_not(lab: Any) -> None:
    job = searched(lab)
    rng = np.random.default_rng(3)
    complete(lab, job, [[rng.normal(), i + 0.1 * rng.normal(), float(i)] for i in range(20)])
    found = report(lab, job)
    weak = [words for words in found.warnings if "correlation of only" in words]
    assert any(words.startswith("After 30 steps the loss of audited trials") for words in weak)
    assert not any("After 90 steps the loss of audited trials ranked them with" in w for w in weak)


def test_without_audits_only_what_the_rungs_chose_is_known(lab: Any) -> None:
    job = searched(lab, fidelity={"audit": 0})
    complete(lab, job, noisy(12, noise=0.1)[0])
    found = report(lab, job)
    assert (found.audits.drawn, found.rungs[0].audited.n, found.rungs[0].completed.n) == (0, 0, 12)
    assert any(words.startswith("No trial was audited") for words in found.warnings)


def test_predictions_are_set_against_measurements(lab: Any) -> None:
    job = searched(lab)
    made = complete(lab, job, [[3.0, 2.0, 1.0]] * 4)
    rows = [  # predicted, measured, low, high
        (11.0, 10.0, 9.0, 12.0),
        (15.0, 20.0, 14.0, 16.0),
        (33.0, 30.0, None, None),
        (None, 40.0, None, None),
    ]
    with lab.store.write() as session:
        for i, (trial, (predicted, measured, low, high)) in enumerate(zip(made, rows, strict=True)):
            session.add(
                MeasurementRow(
                    trial_id=trial.id,
                    metric="latency_ms",
                    predicted=predicted,
                    measured=measured,
                    low=low,
                    high=high,
                    alone=i != 1,
                    finished_at=datetime.now(UTC),
                )
            )
    (cost,) = report(lab, job).costs
    assert (cost.metric, cost.n, cost.alone) == ("latency_ms", 3, False)
    assert cost.error == pytest.approx((0.1 + 0.25 + 0.1) / 3)
    assert cost.bias == pytest.approx((0.1 - 0.25 + 0.1) / 3)
    assert cost.ranks.kendall == pytest.approx(1.0)
    assert cost.ranks.too_few
    assert cost.covered == 0.5
    assert (cost.worst.trial, cost.worst.number) == (made[1].id, 2)
    assert (cost.worst.predicted, cost.worst.measured) == (15.0, 20.0)
    said = " ".join(report(lab, job).warnings)
    assert "latency_ms was predicted with a mean error of 15% (3 measured)" in said
    assert "latency_ms was measured beside other work" in said


def verify(lab: Any, job: JobRecord, trial: TrialRecord, *losses: float) -> None:
    with lab.store.write() as session:
        for seed, loss in enumerate(losses):
            metrics, test = {"loss": loss}, {"loss": loss + 0.5}
            trials.add_verification(session, trial.id, job.token, seed, metrics, test=test)


def test_members_are_shown_with_the_spread_that_they_share(lab: Any) -> None:
    job = searched(lab)
    one, two, three = complete(lab, job, [[3, 2, 1.0], [3, 2, 2.0], [3, 2, 1.95]])
    verify(lab, job, one, 1.31, 1.33)
    verify(lab, job, two, 2.0, 2.02)
    verify(lab, job, three, 1.99, 2.03)
    found = report(lab, job)
    (spread,) = found.spreads
    sd = math.sqrt((2 * 0.01**2 + 2 * 0.01**2 + 2 * 0.02**2) / 3)
    assert (spread.metric, spread.degrees_of_freedom, spread.relative) == ("loss", 3, False)
    assert spread.sd == pytest.approx(sd)
    half = stats.t.ppf(0.975, 3) * sd / math.sqrt(2)
    first = found.members[0]
    assert (first.trial, first.number, first.homogeneous) == (one.id, 1, True)
    assert first.searched == 1.0
    assert first.verified.mean == pytest.approx(1.32)
    assert first.verified.high == pytest.approx(1.32 + half)
    assert first.tested is not None
    assert first.tested.mean == pytest.approx(1.82)
    assert (found.neighbours.pairs, found.neighbours.alike) == (2, 1)
    said = " ".join(found.warnings)
    # 1.95 lies below the interval of the mean, 2.01 ± 0.045, but not below that of one more seed
    assert found.members[2].verified.low is not None
    assert found.members[2].searched is not None
    assert found.members[2].searched < found.members[2].verified.low
    assert "1 of 3 verified members did worse with fresh seeds than in the search" in said
    assert "1 of 2 pairs of neighbouring members differ less in loss" in said


def test_one_seed_tells_of_no_spread(lab: Any) -> None:
    job = searched(lab)
    (trial,) = complete(lab, job, [[3.0, 2.0, 1.0]])
    verify(lab, job, trial, 1.2)
    found = report(lab, job)
    assert (found.members[0].verified.low, found.members[0].verified.n) == (None, 1)
    assert (found.spreads[0].sd, found.spreads[0].degrees_of_freedom) == (None, 0)
    assert any("the spread is not known" in words for words in found.warnings)


def test_rounds_of_latency_have_a_relative_spread(lab: Any) -> None:
    job = searched(lab)
    one, two = complete(lab, job, [[3.0, 2.0, 1.0]] * 2)
    verify(lab, job, one, 1.2)
    with lab.store.write() as session:
        rounds = {one.id: [10.0, 11.0, 10.0], two.id: [20.0, 20.0, 21.0]}
        verifications.put_rounds(session, job.id, job.token, rounds, alone=False)
    found = report(lab, job)
    latency = next(s for s in found.spreads if s.metric == "latency_ms")
    assert (latency.relative, latency.degrees_of_freedom) == (True, 2)
    assert latency.sd is not None
    assert 0.02 < latency.sd < 0.08
    assert any("timed beside other work" in words for words in found.warnings)


def test_another_task_ranks_members_alike_or_not(lab: Any) -> None:
    also = [{"name": "text_lm", "sequence_length": 64}, {"name": "listops"}]
    job = searched(lab, verification={"also": also, "members": 12})
    made = complete(lab, job, [[3.0, 2.0, 1.0 + i] for i in range(12)])
    for i, trial in enumerate(made):
        verify(lab, job, trial, 1.0 + i, 1.01 + i)
    with lab.store.write() as session:
        for i, trial in enumerate(made):
            there = TransferRecord(trial.id, 0, 1, {"loss": 5.0 - i})
            verifications.add_transfer(session, job.id, job.token, there)
        for i, trial in enumerate(made[:4]):
            there = TransferRecord(trial.id, 1, 1, {"loss": 2.0 + i})
            verifications.add_transfer(session, job.id, job.token, there)
    found = report(lab, job)
    against, alike = found.tasks
    assert (against.task["sequence_length"], against.ranks.n) == (64, 12)
    assert against.ranks.spearman == pytest.approx(-1.0)
    assert (alike.task["name"], alike.ranks.n) == ("listops", 4)
    assert alike.ranks.kendall == pytest.approx(1.0)
    assert alike.ranks.too_few
    said = " ".join(found.warnings)
    assert "On text_lm the members rank otherwise (correlation -1.00)" in said
    assert "Members trained on listops as well: 4. Fewer than 10" in said


def test_what_a_job_did_not_verify_is_said_with_its_reason(lab: Any) -> None:
    unasked = searched(lab, verification={"seeds": 0})
    unaffordable = searched(lab)
    for job in (unasked, unaffordable):
        with lab.store.write() as session:
            jobs.finish(session, job.id, job.token, JobState.SUCCEEDED)
    assert any("as the job asks" in words for words in report(lab, unasked).warnings)
    assert any("verification.share" in words for words in report(lab, unaffordable).warnings)
    failed = searched(lab)
    with lab.store.write() as session:
        jobs.finish(session, failed.id, failed.token, JobState.FAILED, "no data")
    assert "Nothing was verified: the job had failed before." in report(lab, failed).warnings


def test_time_is_training_evaluation_or_idle(lab: Any) -> None:
    job = searched(lab, resources={"trials_at_once": 3})
    complete(lab, job, [[3.0, 2.0, 1.0], [3.0]])
    time = report(lab, job).time
    # each segment of the laboratory says that it took 2 and 1 seconds
    assert (time.slots, time.training_seconds, time.evaluation_seconds) == (3, 8.0, 4.0)
    assert time.idle_seconds == 0.0  # rows say that more was done than there was time for
    assert time.share == pytest.approx(2 / 3)


def test_what_the_seed_does_not_fix_is_said(lab: Any) -> None:
    alone = searched(lab, resources={"trials_at_once": 1}, reuse=False)
    assert report(lab, alone).irreproducible == []
    loose = searched(lab, budget={"wall_seconds": 60}, resources={"gpus": 1})
    lab.begin(loose, device="an abacus")
    said = report(lab, loose).irreproducible
    for words in ("side by side", "time or energy", "GPU", "earlier jobs", "an abacus"):
        assert any(words in sentence for sentence in said)
