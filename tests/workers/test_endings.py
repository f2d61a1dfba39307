"""How a search ends: for which bound, for good, and told to whoever asks."""

from __future__ import annotations

from typing import Any

import pytest

from nas.jobs import Jobs
from nas.states import EndedBy
from nas.store import leases
from workers.segments import Assignment
from workers.tuning import Finished

from .bed import Bed, drive, train

PARETO: dict[str, Any] = {"strategy": {"name": "pareto", "pool_size": 64}}


def ended_by(bed: Bed, job: str) -> EndedBy | None:
    return Jobs(bed.store, bed.settings).get(job).progress.ended_by


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"budget": {"trials": 4}}, EndedBy.TRIALS),
        ({"budget": {"full_trainings": 1.0}}, EndedBy.FULL_TRAININGS),
        ({"budget": {"energy_kwh": 1e-5}}, EndedBy.ENERGY_KWH),
        ({"strategy": {"name": "homogeneous"}, "budget": {"trials": 1000}}, EndedBy.SPACE),
        ({**PARETO, "budget": {"trials": 1000, "tolerance": 0.05}}, EndedBy.TOLERANCE),
    ],
    ids=lambda value: value if isinstance(value, EndedBy) else "",
)
def test_a_search_says_for_what_it_ends(
    bed: Bed, request_: dict[str, Any], expected: EndedBy
) -> None:
    job = bed.submit(**request_)
    assert ended_by(bed, job) is None
    list(drive(bed.search(bed.claim())))
    assert ended_by(bed, job) is expected


def test_time_that_is_up_is_said_though_nothing_more_is_asked(bed: Bed) -> None:
    job = bed.submit(budget={"wall_seconds": 10.0})
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    bed.elapsed = 10.0
    search.ended(first, train(first))
    assert isinstance(search.next(), Finished)
    assert ended_by(bed, job) is EndedBy.WALL_SECONDS


def test_less_is_trained_where_more_is_to_be_gained_each_time(bed: Bed) -> None:
    trained = []
    for tolerance in (0.2, 0.02):
        job = bed.submit(**PARETO, budget={"trials": 60, "tolerance": tolerance}, reuse=False)
        list(drive(bed.search(bed.claim())))
        trained.append(len(bed.trials(job)))
    assert trained[0] < trained[1]


def test_once_asking_has_ended_a_new_process_only_finishes_what_there_is(bed: Bed) -> None:
    job_id = bed.submit(**PARETO, budget={"trials": 1000, "tolerance": 0.05})
    job = bed.claim()
    search = bed.search(job)
    running: list[Assignment] = []
    while ended_by(bed, job_id) is None:
        if isinstance(chosen := search.next(), Assignment):
            running.append(chosen)
        if len(running) == 2:
            done = running.pop(0)
            search.ended(done, train(done))
    asked = len(bed.trials(job_id))
    with bed.store.write() as session:  # it is killed, and its lease runs out
        leases.renew_job(session, job.id, job.token, -1)
    list(drive(bed.search(bed.claim())))
    assert len(bed.trials(job_id)) == asked
    assert ended_by(bed, job_id) is EndedBy.TOLERANCE
