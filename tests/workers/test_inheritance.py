"""Trials that start from a relative's weights, when the job wants that."""

from __future__ import annotations

from nas.store import leases
from search_spaces import Architecture

from .bed import Bed, drive


def test_by_default_every_trial_starts_from_scratch(bed: Bed) -> None:
    job = bed.submit()
    assignments = list(drive(bed.search(bed.claim())))
    assert all(assignment.parent is None for assignment in assignments)
    assert all(trial.parent is None for trial in bed.trials(job))


def test_a_trial_starts_from_the_weights_of_a_relative_that_was_trained_before(bed: Bed) -> None:
    job = bed.submit(inherit=True)
    trained: dict[str, Architecture] = {}
    born = {}
    for assignment in drive(bed.search(bed.claim()), slots=1):
        architecture = Architecture.model_validate_json(assignment.architecture)
        if assignment.parent:
            parent = assignment.parent["trial"]
            assert assignment.parent["architecture"] == trained[parent].canonical_json()
            assert assignment.parent["checkpoint"].endswith(f"{job}/{parent}.pt")
            assert trained[parent].width == architecture.width
            born[assignment.trial] = parent
        trained[assignment.trial] = architecture
    assert 0 < len(born) < len(trained), "the first of a width has nobody"
    assert {t.id: t.parent for t in bed.trials(job) if t.parent} == born


def test_after_a_crash_it_has_the_same_parent(bed: Bed) -> None:
    job = bed.submit(inherit=True)
    list(drive(bed.search(bed.claim()), stop_after=9))
    before = {trial.id: trial.parent for trial in bed.trials(job)}
    with bed.store.write() as session:
        leases.release_job(session, job, 1)
    again = list(drive(bed.search(bed.claim())))
    resumed = [a for a in again if a.trial in before]
    assert resumed
    for assignment in resumed:
        parent = assignment.parent and assignment.parent["trial"]
        assert parent == before[assignment.trial]
