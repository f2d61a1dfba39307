"""Events, trials, fronts, exports and prices, over both kinds of database."""

from __future__ import annotations

from typing import Any

import pytest

from nas.catalogue.tasks import TaskShape
from nas.costs import latency_key
from nas.errors import Conflict, NotFound
from nas.jobs import Jobs
from nas.schemas import Constraint, ExportRequest, JobRequest, ProfileRequest
from nas.states import JobState, TrialState
from nas.store import exports, latency, leases, trials
from search_spaces import load_space
from search_spaces.errors import InvalidInput
from tests.latency.machines import pool, table_of


def _request(**changes: Any) -> JobRequest:
    changes = {"objectives": ["loss", "parameters"], **changes}
    return JobRequest.model_validate({"task": {"name": "text_lm"}, **changes})


def test_events_follow_a_number(service: Jobs, searched: Any) -> None:
    told = service.events(searched.id)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert service.event_heads([searched.id]) == {searched.id: len(told)}
    assert [e.seq for e in service.events(searched.id, after=3, limit=2)] == [4, 5]
    assert service.events(searched.id, after=len(told)) == []
    assert service.events(searched.id, after=10**30) == []
    assert len(service.events(searched.id, after=-1)) == len(told)


def test_trials_come_in_pages_and_one_by_one(service: Jobs, searched: Any) -> None:
    page = service.trials(searched.id, sort="-loss", limit=3)
    assert [trial.metrics["loss"] for trial in page.items] == [3.0, 2.0, 2.0]
    assert page.next is not None
    completed = service.trials(searched.id, state=TrialState.COMPLETED)
    assert [trial.number for trial in completed.items] == [1, 2, 3, 4]
    detail = service.trial(page.items[0].id)
    assert (detail.state, detail.rung, detail.job) == (TrialState.PAUSED, 0, searched.id)
    assert [(p.rung, p.steps, p.metrics) for p in detail.curve] == [(0, 30, {"loss": 3.0})]
    assert detail.verified is None
    with pytest.raises(NotFound):
        service.trials("job_unknown")
    with pytest.raises(NotFound):
        service.trial("trial_unknown")


def test_the_front_is_of_the_complete_and_feasible(service: Jobs, searched: Any) -> None:
    found = service.front(searched.id)
    assert found.objectives == ["loss", "parameters"]
    assert [trial.number for trial in found.items] == [2, 1]
    assert found.reference_point == {"loss": 4.0, "parameters": pytest.approx(10_000)}
    # in units of 4 nats and four decades: (1/4, 3/4) and (1/2, 1/2)
    assert found.hypervolume == pytest.approx(0.75 * 0.25 + 0.5 * 0.25)
    assert found.knee in [trial.id for trial in found.items]
    assert [trial.number for trial in found.homogeneous] == [1]


def test_a_front_can_be_asked_for_otherwise(service: Jobs, searched: Any) -> None:
    anywhere = service.front(searched.id, fidelity="any")
    assert [trial.number for trial in anywhere.items] == [2, 1, 5]
    assert [trial.fidelity for trial in anywhere.items] == [1, 1, pytest.approx(1 / 9)]
    small = service.front(searched.id, bounds=[Constraint(metric="parameters", max=500)])
    assert [trial.number for trial in small.items] == [1]
    by_size = service.front(searched.id, objectives=["parameters"])
    assert [trial.number for trial in by_size.items] == [1]
    with pytest.raises(InvalidInput):
        service.front(searched.id, objectives=["beauty"])


def test_a_verified_front_is_of_what_fresh_seeds_measured(
    service: Jobs, searched: Any, lab: Any
) -> None:
    assert service.front(searched.id, verified=True).items == []
    first, second = (t.id for t in service.trials(searched.id, limit=2).items)
    with lab.store.write() as session:
        for trial_id, losses in ((first, (2.2, 2.4)), (second, (2.5, 2.6))):
            for seed, loss in enumerate(losses):
                trials.add_verification(session, trial_id, searched.token, seed, {"loss": loss})
    (winner,) = service.front(searched.id, verified=True).items
    assert winner.id == first  # the other one's luck did not hold
    assert winner.verified is not None
    # of squares 0.02 and 0.005 with two degrees of freedom, t = 4.3027
    half = 4.3027 * (0.025 / 2) ** 0.5 / 2**0.5
    assert winner.verified["loss"].model_dump() == {
        "mean": pytest.approx(2.3),
        "low": pytest.approx(2.3 - half, rel=1e-4),
        "high": pytest.approx(2.3 + half, rel=1e-4),
        "n": 2,
    }


def test_a_verified_front_keeps_what_fresh_seeds_cannot_tell_apart(
    service: Jobs, searched: Any, lab: Any
) -> None:
    names = ("loss", "parameters")
    first, second, third = (t.id for t in service.trials(searched.id, limit=3).items)
    given = {first: (2.0, 2.1), second: (1.95, 2.05), third: (1.0, 1.1)}
    with lab.store.write() as session:
        for trial_id, losses in given.items():
            for seed, loss in enumerate(losses):
                trials.add_verification(session, trial_id, searched.token, seed, {"loss": loss})
    assert [t.id for t in service.front(searched.id, verified=True).items] == [third, first]
    by_loss = service.front(searched.id, objectives=["loss"], verified=True)
    assert [t.id for t in by_loss.items] == [third]
    homogeneous = service.front(searched.id, objectives=names[:1], verified=True).homogeneous
    assert [t.id for t in homogeneous] == [first]
    with lab.store.write() as session:
        losses = {first: 3.0, second: 1.0, third: 2.0}
        for trial_id, loss in losses.items():  # so wide a spread that nothing is certain
            trials.add_verification(session, trial_id, searched.token, 9, {"loss": loss})
    unsure = service.front(searched.id, objectives=["loss"], verified=True)
    assert {t.id for t in unsure.items} == {first, second, third}


def test_a_job_that_has_not_begun_has_an_empty_front(service: Jobs) -> None:
    job, _ = service.submit(_request())
    found = service.front(job.id)
    assert (found.items, found.knee, found.hypervolume) == ([], None, 0.0)


@pytest.mark.parametrize(
    ("wanted", "number"), [("best:loss", 2), ("best:parameters", 1), ("trial", 3)]
)
def test_an_export_is_of_the_trial_that_is_meant(
    service: Jobs, searched: Any, wanted: str, number: int
) -> None:
    by_number = {trial.number: trial.id for trial in service.trials(searched.id).items}
    asked = by_number[number] if wanted == "trial" else wanted
    export, created = service.request_export(searched.id, ExportRequest(trial=asked))
    assert created
    assert (export.trial, export.job, export.format) == (by_number[number], searched.id, "config")
    again, created = service.request_export(searched.id, ExportRequest(trial=by_number[number]))
    assert (again, created) == (export, False)
    with pytest.raises(Conflict, match="queued"):
        service.export_path(export.id)


def test_a_trial_that_is_not_fully_trained_is_not_exported(service: Jobs, searched: Any) -> None:
    by_number = {trial.number: trial.id for trial in service.trials(searched.id).items}
    with pytest.raises(Conflict, match="fully trained"):
        service.request_export(searched.id, ExportRequest(trial=by_number[5]))


def test_exports_of_what_is_not_there_are_refused(service: Jobs, searched: Any) -> None:
    other, _ = service.submit(_request())
    foreign = service.trials(searched.id, limit=1).items[0].id
    for job_id, wanted in (
        (other.id, "knee"),
        (other.id, "best:loss"),
        (other.id, foreign),
        (searched.id, "trial_unknown"),
        (searched.id, "best:accuracy"),
        ("job_unknown", "knee"),
    ):
        with pytest.raises(NotFound):
            service.request_export(job_id, ExportRequest(trial=wanted))
    with pytest.raises(InvalidInput) as refused:
        service.request_export(searched.id, ExportRequest(trial="best:beauty"))
    assert "loss" in refused.value.problems[0].allowed


def test_an_export_whose_file_is_gone_is_not_found(service: Jobs, searched: Any, lab: Any) -> None:
    export, _ = service.request_export(searched.id, ExportRequest())
    with lab.store.write() as session:
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        exports.finish(session, claimed.id, claimed.token, "../../etc/passwd")
    with pytest.raises(NotFound):
        service.export_path(export.id)


def test_architectures_are_priced_without_training(service: Jobs) -> None:
    space = load_space("efficient-lm")
    architectures = tuple(space.sample(seed) for seed in range(3))
    items = service.profile(ProfileRequest(architectures=architectures)).items
    assert len(items) == 3
    assert all(item["parameters"] > item["non_embedding_parameters"] > 0 for item in items)
    longer = ProfileRequest(architectures=architectures, sequence_length=1024)
    assert all(
        after["flops"] > before["flops"]
        for before, after in zip(items, service.profile(longer).items, strict=True)
    )


def test_latency_is_told_for_a_shape_that_a_device_was_measured_for(
    service: Jobs, lab: Any
) -> None:
    architecture = load_space("tiny").sample(0)
    request = ProfileRequest(architectures=(architecture,), batch_size=4, sequence_length=64)
    assert "latency_ms" not in service.profile(request).items[0]
    assert service.profile(request).latency is None
    shape = TaskShape(256, 256, 64, causal=True, head="token")
    table = table_of(pool("tiny"), shape, 4)
    with lab.store.write() as session:
        latency.put(session, latency_key("a machine", shape, 4), table.model_dump(mode="json"))
    answer = service.profile(request)
    assert answer.items[0]["latency_ms"] == table.predict(architecture)
    assert answer.items[0]["step_latency_ms"] == table.predict(architecture, "step")
    assert answer.latency is not None
    assert (answer.latency.device, answer.latency.alone) == ("a machine", True)
    error = answer.latency.errors["step_latency_ms"]
    assert (error.low, error.high) == (table.modes["step"].low, table.modes["step"].high)
    other = request.model_copy(update={"batch_size": 8})
    assert "latency_ms" not in service.profile(other).items[0]


def test_a_table_of_an_older_version_is_never_misread(service: Jobs, lab: Any) -> None:
    request = ProfileRequest(architectures=(load_space("tiny").sample(0),), sequence_length=32)
    shape = TaskShape(256, 256, 32, causal=True, head="token")
    older = {"device": "a machine", "batch_size": 1, "blocks": {"frame width=16": 1.0}}
    with lab.store.write() as session:
        latency.put(session, latency_key("a machine", shape, 1), older)
    answer = service.profile(request)
    assert "latency_ms" not in answer.items[0]
    assert answer.latency is None


def test_an_encoder_cannot_be_priced_as_causal(service: Jobs) -> None:
    linformer = {"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}}
    full = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}}
    architectures = [{"width": 32, "position": "none", "layers": [a]} for a in (full, linformer)]
    request = {"architectures": architectures, "sequence_length": 64}
    with pytest.raises(InvalidInput) as refused:
        service.profile(ProfileRequest.model_validate(request))
    pointers = [problem.pointer for problem in refused.value.problems]
    assert pointers == ["/architectures/1/layers/0/attention/type"]
    bidirectional = ProfileRequest.model_validate({**request, "causal": False})
    assert len(service.profile(bidirectional).items) == 2


def test_leases_end_with_the_job(service: Jobs, searched: Any, lab: Any) -> None:
    service.cancel(searched.id)
    with lab.store.write() as session:
        assert leases.renew_job(session, searched.id, searched.token, 60) == JobState.CANCELLING
        leases.release_job(session, searched.id, searched.token)
    job = service.get(searched.id)
    assert job.state == JobState.CANCELLED
    assert job.progress.trials[TrialState.PAUSED] == 0
    assert job.progress.trials[TrialState.STOPPED] == 1
