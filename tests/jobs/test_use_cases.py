"""Jobs from submission to deletion, over both kinds of database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nas.billing import WORLD_CO2_KG_PER_KWH
from nas.errors import Conflict, NotFound
from nas.jobs import Jobs
from nas.schemas import ExportRequest, JobRequest
from nas.settings import Settings
from nas.states import JobState, TrialState
from nas.store import Store, bills, exports, latency
from nas.store import jobs as job_rows
from search_spaces import load_space
from search_spaces.errors import InvalidInput


def _request(**changes: Any) -> JobRequest:
    changes = {"objectives": ["loss", "parameters"], **changes}
    return JobRequest.model_validate({"task": {"name": "text_lm"}, **changes})


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
    service: Jobs, service_settings: Settings, lab: Any, searched: Any
) -> None:
    export, _ = service.request_export(searched.id, ExportRequest(trial="knee"))
    service_settings.exports.mkdir(parents=True)
    (service_settings.exports / "winner.json").write_text("{}")
    (service_settings.exports / "of-another-job.json").write_text("{}")
    (service_settings.checkpoints / searched.id).mkdir(parents=True)
    (service_settings.checkpoints / searched.id / "trial.pt").write_bytes(b"x")
    with lab.store.write() as session:
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        exports.finish(session, claimed.id, claimed.token, "winner.json")
    with pytest.raises(Conflict):
        service.delete(searched.id)
    with lab.store.write() as session:
        job_rows.finish(session, searched.id, searched.token, JobState.SUCCEEDED)
        latency.put(session, "cpu", {}, searched.id)
    assert service.export_path(export.id).read_text() == "{}"
    service.delete(searched.id)
    with lab.store.read() as session:
        assert latency.get(session, "cpu", searched.id) is None
    assert [path.name for path in service_settings.exports.iterdir()] == ["of-another-job.json"]
    assert list(service_settings.checkpoints.iterdir()) == []
    for gone in (
        lambda: service.get(searched.id),
        lambda: service.export(export.id),
        lambda: service.events(searched.id),
        lambda: service.front(searched.id),
        lambda: service.delete(searched.id),
    ):
        with pytest.raises(NotFound):
            gone()


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
        bills.add_cost(
            session, job.id, job.token, search_core_seconds=5400, verification_core_seconds=1800
        )
    bill = service.get(job.id).bill
    assert (bill.core_seconds, bill.search_core_seconds) == (7200, 5400)
    assert bill.energy_kwh == pytest.approx(0.072)  # two core-hours of 36 W
    assert bill.co2_kg == pytest.approx(0.036)
    assert (bill.money, bill.currency) == (pytest.approx(4.0), "EUR")
    assert (bill.energy_source, bill.device_seconds) == ("estimated", pytest.approx(7200))


def test_what_counters_have_measured_is_not_estimated(service: Jobs, lab: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        jobs = (session, job.id, job.token)
        bills.add_cost(*jobs, search_core_seconds=3600, metered_kwh=0.1)
    bill = service.get(job.id).bill
    assert (bill.energy_kwh, bill.energy_source) == (pytest.approx(0.1), "measured")
    with lab.store.write() as session:
        jobs = (session, job.id, job.token)
        bills.add_cost(*jobs, verification_core_seconds=1800, metered_kwh=0.2)
        bills.add_cost(*jobs, verification_core_seconds=3600)
    bill = service.get(job.id).bill
    assert bill.energy_kwh == pytest.approx(0.1 + 0.2 + 0.036)  # one core-hour of 36 W
    assert bill.energy_source == "partly measured"
    record = lab.record(job.id)
    assert (record.search_metered_kwh, record.verification_metered_kwh) == (0.1, 0.2)


def test_a_job_on_gpus_pays_for_gpus(service: Jobs, lab: Any) -> None:
    job = lab.running(resources={"threads": 2, "gpus": 0.5, "trials_at_once": 1})
    with lab.store.write() as session:  # an hour of two cores and half a GPU
        bills.add_cost(session, job.id, job.token, search_core_seconds=7200)
    bill = service.get(job.id).bill
    assert bill.device_seconds == pytest.approx(1800)
    assert bill.money == pytest.approx(1.0)
    assert bill.energy_kwh == pytest.approx(0.072 + 0.15)  # half of 300 W


def test_the_carbon_of_where_it_ran_comes_first(
    store: Store, service_settings: Settings, lab: Any
) -> None:
    elsewhere, here = lab.running(), lab.running()
    for job, intensity in ((elsewhere, 0.1), (here, None)):
        lab.begin(job, co2_kg_per_kwh=intensity)
    service = Jobs(store, service_settings)
    assert service.get(elsewhere.id).bill.co2_kg_per_kwh == 0.1
    assert service.get(here.id).bill.co2_kg_per_kwh == 0.5
    unknown = Jobs(store, service_settings.model_copy(update={"co2_kg_per_kwh": None}))
    assert unknown.get(here.id).bill.co2_kg_per_kwh == WORLD_CO2_KG_PER_KWH


def test_an_id_that_no_database_can_hold_is_no_fault_of_ours(service: Jobs) -> None:
    with pytest.raises((NotFound, InvalidInput)):
        service.get("job_\0")
