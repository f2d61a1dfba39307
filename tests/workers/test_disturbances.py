"""What is nobody's fault: full disks, lost data, results that cannot be recorded."""

from __future__ import annotations

import math

import pytest

from nas.errors import NasError
from nas.states import TrialState
from workers.patience import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE_SECONDS
from workers.search import GIVEN_UP_TRIALS, Search
from workers.segments import Assignment, Outcome
from workers.tuning import SegmentSearcher

from .bed import Bed, drive, train

FULL = Outcome("disturbed", 0, {}, 0.0, 0.0, "OSError: disk full")


def disturb(bed: Bed, search: Search) -> Assignment:
    """Wait until a segment is given out, and disturb it."""
    while (chosen := search.next()) is None:
        bed.elapsed += 1.0
    assert isinstance(chosen, Assignment)
    search.ended(chosen, FULL)
    return chosen


def test_what_disturbs_is_tried_again_after_a_pause(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = disturb(bed, search)
    assert search.next() is None
    bed.elapsed += FIRST_PAUSE
    again = search.next()
    assert isinstance(again, Assignment)
    assert again.trial == first.trial
    search.ended(again, train(again))
    list(drive(search))
    assert all(t.state is not TrialState.FAILED for t in bed.trials(job_id))


def test_a_disk_that_is_full_for_a_while_costs_no_trial(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    began = bed.elapsed
    while bed.elapsed - began < PATIENCE_SECONDS / 2:
        disturb(bed, search)
    bed.elapsed += LONGEST_PAUSE
    list(drive(search))
    assert all(t.state is not TrialState.FAILED for t in bed.trials(job_id))


def test_a_disk_that_stays_full_fails_the_job_and_few_trials(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    search.ended(first, train(first))

    def disturb_for_ever() -> None:
        while True:
            disturb(bed, search)

    with pytest.raises(NasError, match="nothing can be trained any more: OSError: disk full"):
        disturb_for_ever()
    assert PATIENCE_SECONDS <= bed.elapsed <= PATIENCE_SECONDS + 5 * LONGEST_PAUSE
    failed = [t for t in bed.trials(job_id) if t.state is TrialState.FAILED]
    assert len(failed) == GIVEN_UP_TRIALS
    assert all("disk full" in (t.error or "") for t in failed)


@pytest.mark.parametrize(("slots", "how"), [(1, "again and again"), (2, "3 times")])
def test_what_alone_is_disturbed_fails_alone(bed: Bed, slots: int, how: str) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    cursed = disturb(bed, search).trial
    while True:
        bed.elapsed += LONGEST_PAUSE
        chosen = [search.next() for _ in range(slots)]
        running = [c for c in chosen if isinstance(c, Assignment)]
        if not running:
            break
        for assignment in running:
            search.ended(assignment, FULL if assignment.trial == cursed else train(assignment))
    (failed,) = [t for t in bed.trials(job_id) if t.state is TrialState.FAILED]
    assert failed.id == cursed
    assert failed.error == f"OSError: disk full, {how}"
    assert len(bed.trials(job_id)) == 18


def test_a_result_that_cannot_be_recorded_stops_the_job(bed: Bed) -> None:
    bed.submit()
    search = bed.search(bed.claim())
    searcher = SegmentSearcher(search)
    chosen = searcher.suggest("tune-1")
    assert isinstance(chosen, dict)
    bad = Outcome("finished", 3, {"loss": math.nan}, 1.0, 0.5)
    searcher.on_trial_complete("tune-1", bad.to_result())  # Tune hears nothing of it …
    with pytest.raises(ValueError, match="loss"):
        searcher.suggest("tune-2")  # … but nothing goes on
    with pytest.raises(ValueError, match="loss"):
        searcher.check()
