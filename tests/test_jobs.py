"""The use cases, over both kinds of database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nas.errors import Conflict, NotFound
from nas.jobs import Jobs
from nas.schemas import Constraint, ExportRequest, JobRequest, ProfileRequest
from nas.settings import Settings
from nas.states import JobState, TrialState
from nas.store import Store, exports, leases, trials
from nas.store import jobs as job_rows
from search_spaces import load_space
from search_spaces.errors import InvalidInput

SCALES = {
    "loss": {"low": 0.0, "high": 4.0, "log": False, "maximize": False},
    "parameters": {"low": 1.0, "high": 10_000.0, "log": True, "maximize": False},
}
MINE = b"a text of my own. " * 2000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        max_upload_bytes=100_000,
        watts_per_core=36.0,
        co2_kg_per_kwh=0.5,
        price_per_core_hour=2.0,
    )


@pytest.fixture
def service(store: Store, settings: Settings) -> Jobs:
    return Jobs(store, settings)


def _request(**changes: Any) -> JobRequest:
    changes = {"objectives": ["loss", "parameters"], **changes}
    return JobRequest.model_validate({"task": {"name": "text_lm"}, **changes})


@pytest.fixture
def searched(service: Jobs, lab: Any) -> Any:
    """A running job: trials 1 and 2 are its front, 4 breaks the constraint, 5 is not complete."""
    service.submit(_request(constraints=[{"metric": "parameters", "max": 5000}]))
    job = lab.claim()
    with lab.together(), lab.writing() as session:
        job_rows.begin(
            session,
            job.id,
            job.token,
            task_key="t",
            result_key="r",
            data_hash="d",
            trivial_loss=4.0,
            scales=SCALES,
        )
        for i, (loss, parameters, rung) in enumerate(
            [(2.0, 100.0, 2), (1.0, 1000.0, 2), (2.0, 1000.0, 2), (0.5, 9000.0, 2), (3.0, 10.0, 0)]
        ):
            trial = lab.insert(job, i, costs={"parameters": parameters})
            lab.train(job, trial, {"loss": loss}, rung=rung)
    return job


# --- submitting -------------------------------------------------------------------------------


def test_a_submitted_job_is_queued_with_its_space_pinned(service: Jobs) -> None:
    job, created = service.submit(_request(name="first", project="mine", seed=3))
    assert created
    assert (job.state, job.name, job.project) == (JobState.QUEUED, "first", "mine")
    assert job.space == job.request["space"] == f"efficient-lm@{load_space('efficient-lm').version}"
    assert job.request["seed"] == 3
    assert job.request["fidelity"]["max_steps"] == 270
    assert service.get(job.id) == job
    assert (job.progress.fraction, job.progress.eta_seconds, job.bill.core_seconds) == (0, None, 0)


def test_a_refused_job_leaves_nothing(service: Jobs) -> None:
    with pytest.raises(InvalidInput):
        service.submit(_request(space="unknown"))
    assert service.list().items == []


def test_the_same_key_and_request_are_the_same_job(service: Jobs) -> None:
    job, created = service.submit(_request(), "key")
    again, created_again = service.submit(_request(), "key")
    assert (created, created_again, again.id) == (True, False, job.id)
    with pytest.raises(Conflict):
        service.submit(_request(seed=1), "key")
    elsewhere, created = service.submit(_request(project="other"), "key")
    assert created
    assert elsewhere.id != job.id
    assert len(service.list().items) == 2


def test_a_key_used_by_many_at_once_is_one_job(service: Jobs) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: service.submit(_request(), "key"), range(8)))
    assert len({job.id for job, _ in found}) == 1
    assert [created for _, created in found].count(True) == 1


def test_jobs_are_listed_newest_first(service: Jobs) -> None:
    made = [service.submit(_request(project=f"p{i % 2}"))[0].id for i in range(5)]
    first = service.list(limit=2)
    rest = service.list(limit=3, cursor=first.next)
    assert sorted(j.id for j in first.items + rest.items) == sorted(made)
    ids = [job.id for job in first.items + rest.items]
    assert ids == sorted(ids, reverse=True)
    assert rest.next is None
    assert {job.id for job in service.list(project="p1").items} == {made[1], made[3]}
    service.cancel(made[4])
    assert [job.id for job in service.list(state=JobState.CANCELLED).items] == [made[4]]


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_page_has_a_size(service: Jobs, limit: int) -> None:
    for page in (service.list, service.datasets, lambda limit: service.trials("job", limit=limit)):
        with pytest.raises(InvalidInput) as refused:
            page(limit=limit)
        assert [problem.pointer for problem in refused.value.problems] == ["/limit"]


# --- control ----------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once_and_again(service: Jobs) -> None:
    job, _ = service.submit(_request())
    assert service.cancel(job.id).state == JobState.CANCELLED
    assert service.cancel(job.id).state == JobState.CANCELLED
    for control in (service.pause, service.resume):
        with pytest.raises(Conflict):
            control(job.id)


def test_a_running_job_is_cancelled_by_its_worker(service: Jobs, lab: Any) -> None:
    job = lab.running()
    assert service.cancel(job.id).state == JobState.CANCELLING
    assert service.cancel(job.id).state == JobState.CANCELLING
    for control in (service.pause, service.resume, service.delete):
        with pytest.raises(Conflict):
            control(job.id)
    with lab.store.write() as session:
        job_rows.finish(session, job.id, job.token, JobState.CANCELLED)
    assert service.get(job.id).finished_at is not None


def test_a_job_is_paused_and_resumed(service: Jobs) -> None:
    job, _ = service.submit(_request())
    assert service.resume(job.id).state == JobState.QUEUED
    for _ in range(2):
        assert service.pause(job.id).state == JobState.PAUSED
    for _ in range(2):
        assert service.resume(job.id).state == JobState.QUEUED
    service.pause(job.id)
    assert service.cancel(job.id).state == JobState.CANCELLED


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_job_that_has_ended_cannot_be_cancelled(service: Jobs, lab: Any, end: JobState) -> None:
    job = lab.running()
    with lab.store.write() as session:
        job_rows.finish(session, job.id, job.token, end)
    for control in (service.cancel, service.pause, service.resume):
        with pytest.raises(Conflict):
            control(job.id)


def test_deleting_a_job_removes_its_files(
    service: Jobs, settings: Settings, lab: Any, searched: Any
) -> None:
    export, _ = service.request_export(searched.id, ExportRequest(trial="knee"))
    settings.exports.mkdir(parents=True)
    (settings.exports / "winner.json").write_text("{}")
    (settings.exports / "of-another-job.json").write_text("{}")
    (settings.checkpoints / searched.id).mkdir(parents=True)
    (settings.checkpoints / searched.id / "trial.pt").write_bytes(b"x")
    with lab.store.write() as session:
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        exports.finish(session, claimed.id, claimed.token, "winner.json")
    with pytest.raises(Conflict):
        service.delete(searched.id)
    with lab.store.write() as session:
        job_rows.finish(session, searched.id, searched.token, JobState.SUCCEEDED)
    assert service.export_path(export.id).read_text() == "{}"
    service.delete(searched.id)
    assert [path.name for path in settings.exports.iterdir()] == ["of-another-job.json"]
    assert list(settings.checkpoints.iterdir()) == []
    for gone in (
        lambda: service.get(searched.id),
        lambda: service.export(export.id),
        lambda: service.events(searched.id),
        lambda: service.front(searched.id),
        lambda: service.delete(searched.id),
    ):
        with pytest.raises(NotFound):
            gone()


# --- progress and bill ------------------------------------------------------------------------


def test_progress_is_counted(service: Jobs, searched: Any) -> None:
    progress = service.get(searched.id).progress
    assert progress.trials[TrialState.COMPLETED] == 4
    assert progress.trials[TrialState.PAUSED] == 1
    assert progress.trials[TrialState.FAILED] == 0
    assert progress.rung_steps == [30, 90, 270]
    assert progress.rung_counts == [5, 4, 4]
    assert progress.spent == pytest.approx(4 + 1 / 9)
    assert progress.fraction == pytest.approx(5 / 48)
    assert progress.eta_seconds == pytest.approx(progress.elapsed_seconds * 43 / 5)
    assert progress.best == {"loss": 1.0, "parameters": 100.0}  # among complete and feasible


def test_the_nearest_bound_of_the_budget_counts(service: Jobs, lab: Any) -> None:
    job = lab.running(budget={"trials": 100, "full_trainings": 2, "energy_kwh": 1e9})
    lab.train(job, lab.insert(job), {"loss": 1.0})
    assert service.get(job.id).progress.fraction == pytest.approx(0.5)
    reused = {"state": TrialState.REUSED, "metrics": {"loss": 0.5}, "rung": 2}
    lab.insert(job, 1, **reused)
    progress = service.get(job.id).progress
    assert progress.fraction == pytest.approx(0.5)  # what is reused costs nothing
    assert progress.trials[TrialState.REUSED] == 1
    assert progress.best["loss"] == 0.5
    with lab.store.write() as session:
        job_rows.finish(session, job.id, job.token, JobState.SUCCEEDED)
    progress = service.get(job.id).progress
    assert (progress.fraction, progress.eta_seconds) == (1.0, 0.0)


def test_the_best_is_of_the_highest_rung_while_nothing_is_complete(service: Jobs, lab: Any) -> None:
    job = lab.running(objectives=["accuracy", "loss"])
    assert service.get(job.id).progress.best == {}
    for i, (accuracy, rung) in enumerate([(0.9, 0), (0.2, 1), (0.3, 1)]):
        lab.train(job, lab.insert(job, i), {"accuracy": accuracy}, rung=rung)
    assert service.get(job.id).progress.best == {"accuracy": 0.3}


def test_a_job_is_billed_at_the_rates_of_the_settings(service: Jobs, lab: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        job_rows.add_cost(
            session, job.id, job.token, search_core_seconds=5400, verification_core_seconds=1800
        )
    bill = service.get(job.id).bill
    assert (bill.core_seconds, bill.search_core_seconds) == (7200, 5400)
    assert bill.energy_kwh == pytest.approx(0.072)  # two core-hours of 36 W
    assert bill.co2_kg == pytest.approx(0.036)
    assert (bill.money, bill.currency) == (pytest.approx(4.0), "EUR")


# --- events and trials ------------------------------------------------------------------------


def test_events_follow_a_number(service: Jobs, searched: Any) -> None:
    told = service.events(searched.id)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert service.event_heads([searched.id]) == {searched.id: len(told)}
    assert [e.seq for e in service.events(searched.id, after=3, limit=2)] == [4, 5]
    assert service.events(searched.id, after=len(told)) == []


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


# --- the front --------------------------------------------------------------------------------


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
    assert winner.verified == {
        "loss": {"mean": pytest.approx(2.3), "low": 2.2, "high": 2.4, "n": 2}
    }


def test_a_job_that_has_not_begun_has_an_empty_front(service: Jobs) -> None:
    job, _ = service.submit(_request())
    found = service.front(job.id)
    assert (found.items, found.knee, found.hypervolume) == ([], None, 0.0)


# --- exports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "number"), [("best:loss", 2), ("best:parameters", 1), ("trial", 5)]
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


# --- data sets --------------------------------------------------------------------------------


def test_a_data_set_is_added_listed_used_and_removed(
    service: Jobs, settings: Settings, lab: Any
) -> None:
    added, created = service.add_dataset("mine", [MINE[:100], MINE[100:]])
    assert created
    assert (added.bytes, added.kind) == (len(MINE), "text")
    file = settings.datasets / added.sha256
    assert file.read_bytes() == MINE
    assert service.add_dataset("mine", [MINE]) == (added, False)
    with pytest.raises(Conflict):
        service.add_dataset("mine", [b"something else"])
    assert [path.name for path in settings.datasets.iterdir()] == [added.sha256]

    job, _ = service.submit(_request(task={"name": "text_lm", "dataset": "mine"}))
    with pytest.raises(Conflict, match=job.id):
        service.delete_dataset("mine")
    assert file.exists()
    service.cancel(job.id)
    service.delete_dataset("mine")
    assert not file.exists()
    with pytest.raises(NotFound):
        service.delete_dataset("mine")
    with pytest.raises(InvalidInput):
        service.submit(_request(task={"name": "text_lm", "dataset": "mine"}))


def test_two_names_share_a_file(service: Jobs, settings: Settings) -> None:
    for name in ("one", "two"):
        added, created = service.add_dataset(name, [MINE])
        assert created
    service.delete_dataset("one")
    assert (settings.datasets / added.sha256).read_bytes() == MINE
    service.delete_dataset("two")
    assert list(settings.datasets.iterdir()) == []


def test_data_sets_come_in_pages(service: Jobs) -> None:
    for name in ("b", "c", "a"):
        service.add_dataset(name, [name.encode()])
    first = service.datasets(limit=2)
    second = service.datasets(limit=2, cursor=first.next)
    assert [data.name for data in (*first.items, *second.items)] == ["a", "b", "c"]
    assert second.next is None


@pytest.mark.parametrize("name", ["python-source", "", "../mine", "Mine", "a/b", "x" * 65, "a\n"])
def test_a_name_that_cannot_be_used_is_refused(service: Jobs, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        service.add_dataset(name, [MINE])
    assert [problem.pointer for problem in refused.value.problems] == ["/name"]


@pytest.mark.parametrize("chunks", [[], [b"x" * 60_000] * 2])
def test_no_data_or_too_much_is_refused(
    service: Jobs, settings: Settings, chunks: list[bytes]
) -> None:
    with pytest.raises(InvalidInput):
        service.add_dataset("mine", chunks)
    assert service.datasets().items == []
    assert list(settings.datasets.iterdir()) == []


# --- prices -----------------------------------------------------------------------------------


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
