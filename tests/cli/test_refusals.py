from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas.cli.output import exit_code
from nas.client import ServiceError
from nas.errors import Conflict, NasError, NotFound, StoreUnavailable, TrialFailed
from nas.schemas import ProblemDocument
from search_spaces.errors import InvalidInput, Problem


def test_unknown_command_and_option_are_bad_usage(nas: Any) -> None:
    assert "No such command" in nas.refused("frobnicate")
    assert "No such option" in nas.refused("jobs", "--frobnicate")
    assert "--name" in nas.refused("data", "add", __file__)


def test_missing_job_file_is_named(nas: Any, tmp_path: Path) -> None:
    assert "absent.yaml does not exist" in nas.refused("submit", str(tmp_path / "absent.yaml"))
    assert "is a folder" in nas.refused("submit", str(tmp_path))


def test_broken_yaml_says_where(nas: Any, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("task:\n  name: [text_lm\n")
    assert "line 3" in nas.refused("submit", str(file))


def test_refused_job_says_where_and_what_is_allowed(nas: Any) -> None:
    said = nas.refused(
        "submit", "-", stdin='{"task": {"name": "text_lm"}, "strategy": {"name": "x"}, "bogus": 1}'
    )
    assert "/strategy/name" in said
    assert "allowed: pareto, nsga2, regularized_evolution, random" in said
    assert "/bogus: unknown key" in said


def test_unreachable_service_fails_with_advice(nas: Any) -> None:
    said = nas.refused("jobs", "--url", "http://127.0.0.1:1", code=1)
    assert "http://127.0.0.1:1" in said
    assert "nas serve" in said


def test_the_url_may_stand_before_the_command(nas: Any) -> None:
    for command in (("jobs",), ("data", "list"), ("show", "latest")):
        assert "127.0.0.1:1 " in nas.refused("--url", "http://127.0.0.1:1", *command, code=1)
    both = nas("--url", "http://127.0.0.1:1", "jobs", "--url", nas.url)
    assert both.exit_code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("show", "job_none"),
        ("watch", "job_none"),
        ("cancel", "job_none"),
        ("trials", "job_none"),
        ("pareto", "job_none"),
        ("report", "job_none"),
        ("export", "job_none"),
        ("data", "rm", "none"),
    ],
)
def test_what_does_not_exist_is_bad_input(nas: Any, command: tuple[str, ...]) -> None:
    assert "none" in nas.refused(*command)


def test_unknown_trial_and_format_are_refused(nas: Any, finished: str) -> None:
    assert "trial_none" in nas.refused("export", finished, "--trial", "trial_none")
    assert "no trial number 999" in nas.refused("export", finished, "--trial", "999")
    assert "allowed: config" in nas.refused("export", finished, "--format", "pickle")
    assert "'nothing' is not a metric" in nas.refused("export", finished, "--trial", "best:nothing")


def test_malformed_bounds_and_plots_are_refused_before_anything_is_asked(
    nas: Any, tmp_path: Path
) -> None:
    nowhere = ("pareto", "latest", "--url", "http://127.0.0.1:1")
    assert "METRIC=NUMBER" in nas.refused(*nowhere, "--max", "latency_ms")
    assert "METRIC=NUMBER" in nas.refused(*nowhere, "--min", "loss=small")
    assert ".png, .svg, .html" in nas.refused(*nowhere, "--plot", "front.pdf")
    assert "does not exist" in nas.refused(*nowhere, "--plot", str(tmp_path / "no" / "front.png"))


def test_unknown_metrics_in_a_front_are_refused(nas: Any, finished: str) -> None:
    assert "allowed: loss" in nas.refused("pareto", finished, "--objectives", "loss,speed")
    assert "speed" in nas.refused("pareto", finished, "--max", "speed=3")


def test_settings_that_cannot_be_used_name_their_source(
    nas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_PORT", "many")
    assert "NAS_PORT" in nas.refused("jobs")


def test_a_broken_settings_file_is_named(
    nas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paretoformer.toml").write_text("port = \n")
    assert "paretoformer.toml" in nas.refused("config")


def service_error(status: int) -> ServiceError:
    return ServiceError(ProblemDocument(type="t", title="T", status=status, detail="d"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput([Problem("/x", "wrong")]), 2),
        (NotFound("x"), 2),
        (Conflict("x"), 2),
        (service_error(404), 2),
        (service_error(422), 2),
        (service_error(500), 1),
        (service_error(503), 1),
        (StoreUnavailable("x"), 1),
        (TrialFailed("x"), 1),
        (NasError("x"), 1),
        (PermissionError("x"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_country_that_is_not_known_is_refused_before_anything_starts(
    nas: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("NAS_COUNTRY", "XXX")
    said = nas.refused(command)
    assert "/country" in said
    assert "DEU" in said
