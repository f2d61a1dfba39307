from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nas.plot import draw_front
from nas.plot.marks import PALETTE
from nas.schemas import Bill, Front, Job, Progress, Trial
from nas.states import JobState, TrialState
from search_spaces.attention import ATTENTION
from search_spaces.errors import InvalidInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(
    id="job_1",
    name="<b>name</b>",
    project="default",
    state=JobState.RUNNING,
    request={"task": {"name": "text_lm"}},
    space="tiny@1",
    progress=Progress(
        trials={},
        phase="",
        rung_counts=[],
        rung_steps=[],
        spent=0,
        fraction=0,
        elapsed_seconds=0,
        eta_seconds=None,
        best={},
    ),
    bill=Bill(
        core_seconds=0,
        search_core_seconds=0,
        verification_core_seconds=0,
        energy_kwh=0,
        energy_source="estimated",
        co2_kg=0,
        money=0,
        currency="EUR",
    ),
    error=None,
    created_at=NOW,
    started_at=NOW,
    finished_at=None,
)


def trial(number: int, *attention: str, fidelity: float = 1.0, **metrics: float) -> Trial:
    layers = [{"attention": {"type": a}, "feedforward": {"type": "dense"}} for a in attention]
    return Trial(
        id=f"trial_{number}",
        job="job_1",
        number=number,
        architecture={"width": 64, "layers": layers},
        fingerprint=str(number),
        origin="random",
        metrics=metrics,
        rung=None,
        fidelity=fidelity,
        state=TrialState.COMPLETED,
        error=None,
        verified=None,
        seed=0,
        created_at=NOW,
        finished_at=NOW,
    )


def front(*members: Trial, objectives: tuple[str, ...] = ("loss", "parameters")) -> Front:
    return Front(
        objectives=list(objectives),
        items=list(members),
        hypervolume=0.5,
        reference_point={},
        knee=members[0].id if members else None,
        homogeneous=list(members[:1]),
    )


def drawn(tmp_path: Path, found: Front, **rest: Any) -> str:
    path = tmp_path / "front.svg"
    draw_front(path, job=JOB, front=found, **rest)
    return path.read_text()


def test_every_member_is_marked_and_the_knee_named(tmp_path: Path) -> None:
    members = [
        trial(1, "full", loss=2.0, parameters=1e5),
        trial(2, "full", "linear", loss=1.0, parameters=2e5),
    ]
    svg = drawn(tmp_path, front(*members), trials=members)
    assert 'id="trial-trial_1"' in svg
    assert 'id="trial-trial_2"' in svg
    assert "knee: trial 1" in svg
    assert "2 on the front of 2" in svg
    assert "edge: second kind, if mixed" in svg


def test_a_mixed_architecture_has_the_second_attention_on_its_edge(tmp_path: Path) -> None:
    member = trial(1, "linear", "full", "linear", loss=2.0, parameters=1e5)
    svg = drawn(tmp_path, front(member)).lower()
    mark = svg[svg.index('id="trial-trial_1"') :].partition("</g>")[0]
    names = list(ATTENTION)
    assert f"fill: {PALETTE[names.index('linear')].lower()}" in mark
    assert f"stroke: {PALETTE[names.index('full')].lower()}" in mark


def test_what_is_not_on_the_front_is_told_apart(tmp_path: Path) -> None:
    members = [
        trial(1, "full", loss=2.0, parameters=1e5),
        trial(2, "full", loss=1.0, parameters=4e5),
    ]
    dominated = trial(3, "full", loss=1.9, parameters=2e5)
    unfinished = trial(4, "full", loss=1.5, parameters=2e5, fidelity=0.1)
    dear = trial(5, "full", loss=1.2, parameters=3e5)
    svg = drawn(
        tmp_path,
        front(*members),
        trials=[*members, dominated, unfinished, dear],
        feasible=lambda t: t.number != 5,
    )
    assert "2 on the front of 3 within the bounds" in svg
    for text in ("dominated", "lower fidelity (not comparable)", "outside the bounds"):
        assert text in svg


def test_what_lies_out_of_view_is_not_in_the_legend(tmp_path: Path) -> None:
    member = trial(1, "full", loss=2.0, parameters=1e5)
    far = trial(2, "full", loss=9.0, parameters=1e5, fidelity=0.1)
    assert "lower fidelity" not in drawn(tmp_path, front(member), trials=[far])


@pytest.mark.parametrize(
    "found",
    [
        front(),
        front(trial(1, "full", loss=2.0, parameters=1e5)),
        front(trial(1, "of-tomorrow", loss=0.0, parameters=0.0)),
        front(trial(1, "full", loss=2.0), objectives=("loss",)),
        front(trial(1, "full", accuracy=0.5, loss=1.0), objectives=("accuracy", "loss")),
    ],
)
def test_scarce_and_odd_fronts_are_drawn_too(tmp_path: Path, found: Front) -> None:
    for suffix in (".png", ".html"):
        path = tmp_path / f"front{suffix}"
        draw_front(path, job=JOB, front=found)
        assert path.stat().st_size > 1000


def test_the_page_shows_names_as_text(tmp_path: Path) -> None:
    path = tmp_path / "front.html"
    draw_front(path, job=JOB, front=front(trial(1, "<i>", loss=2.0, parameters=1e5)))
    page = path.read_text()
    assert "<b>name" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;name" in page


def test_the_same_front_gives_the_same_file(tmp_path: Path) -> None:
    found = front(trial(1, "full", loss=2.0, parameters=1e5))
    assert drawn(tmp_path, found) == drawn(tmp_path, found)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\.png, \.svg, \.html"):
        draw_front(tmp_path / "front.pdf", job=JOB, front=front())
