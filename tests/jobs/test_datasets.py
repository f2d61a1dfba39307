"""Data sets, over both kinds of database."""

from __future__ import annotations

from typing import Any

import pytest

from nas.errors import Conflict, NotFound
from nas.jobs import Jobs
from nas.schemas import JobRequest
from nas.settings import Settings
from search_spaces.errors import InvalidInput

MINE = b"a text of my own. " * 2000


def _request(**changes: Any) -> JobRequest:
    changes = {"objectives": ["loss", "parameters"], **changes}
    return JobRequest.model_validate({"task": {"name": "text_lm"}, **changes})


def test_a_data_set_is_added_listed_used_and_removed(
    service: Jobs, service_settings: Settings, lab: Any
) -> None:
    added, created = service.add_dataset("mine", [MINE[:100], MINE[100:]])
    assert created
    assert (added.bytes, added.kind) == (len(MINE), "text")
    file = service_settings.datasets / added.sha256
    assert file.read_bytes() == MINE
    assert service.add_dataset("mine", [MINE]) == (added, False)
    with pytest.raises(Conflict):
        service.add_dataset("mine", [b"something else"])
    assert [path.name for path in service_settings.datasets.iterdir()] == [added.sha256]

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


def test_two_names_share_a_file(service: Jobs, service_settings: Settings) -> None:
    for name in ("one", "two"):
        added, created = service.add_dataset(name, [MINE])
        assert created
    service.delete_dataset("one")
    assert (service_settings.datasets / added.sha256).read_bytes() == MINE
    service.delete_dataset("two")
    assert list(service_settings.datasets.iterdir()) == []


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
    service: Jobs, service_settings: Settings, chunks: list[bytes]
) -> None:
    with pytest.raises(InvalidInput):
        service.add_dataset("mine", chunks)
    assert service.datasets().items == []
    assert list(service_settings.datasets.iterdir()) == []


def test_rows_are_checked_as_they_come_in(service: Jobs, service_settings: Settings) -> None:
    good = b'{"text": "a fine film", "label": "good"}\n'
    added, _ = service.add_dataset("films", [good * 3], kind="labelled")
    assert added.kind == "labelled"
    with pytest.raises(InvalidInput) as refused:
        service.add_dataset("others", [good, b'{"text": "no label"}\n'], kind="labelled")
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.message) == ("/file", "line 2: no label")
    assert [file.name for file in service_settings.datasets.iterdir()] == [added.sha256]
    with pytest.raises(Conflict, match="another kind"):
        service.add_dataset("films", [good * 3])
