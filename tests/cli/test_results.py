from __future__ import annotations

import json
import re
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from nas.training.config import read_config


def test_trials_are_filtered_sorted_and_limited(nas: Any, finished: str) -> None:
    found = nas.json("trials", finished, "--state", "completed", "--sort", "loss", "--limit", "5")
    losses = [t["metrics"]["loss"] for t in found["items"]]
    assert losses == sorted(losses)
    assert len(losses) == 5
    assert found["more"]
    everything = nas.json("trials", finished)
    assert (len(everything["items"]), everything["more"]) == (24, False)


def test_trials_table_shows_metrics_and_why_one_failed(nas: Any, finished: str) -> None:
    said = nas("trials", finished).stdout
    assert "diverged at step 31" in said
    assert "latency_ms" in said
    assert max(map(len, said.splitlines())) <= 100


def test_pareto_is_the_front_of_the_service(nas: Any, finished: str) -> None:
    front = nas.json("pareto", finished)
    assert front["objectives"] == ["loss", "latency_ms", "parameters"]
    points = [[t["metrics"][o] for o in front["objectives"]] for t in front["items"]]
    for one in points:
        assert not any(
            all(a <= b for a, b in zip(other, one, strict=True)) and other != one
            for other in points
        )
    said = nas("pareto", finished).stdout
    assert "◆" in said
    assert f"hypervolume {front['hypervolume']:.4f}" in said
    assert "same block in every layer" in said


def test_pareto_within_bounds_and_other_objectives(nas: Any, finished: str) -> None:
    bounded = nas.json("pareto", finished, "--max", "latency_ms=4", "--min", "accuracy=0.2")
    assert bounded["items"]
    assert all(t["metrics"]["latency_ms"] <= 4 for t in bounded["items"])
    two = nas.json("pareto", finished, "--objectives", "loss, parameters")
    assert two["objectives"] == ["loss", "parameters"]
    verified = nas.json("pareto", finished, "--verified")
    assert [t["verified"]["loss"]["n"] for t in verified["items"]] == [2]


def test_an_empty_front_is_no_failure(nas: Any, finished: str) -> None:
    result = nas("pareto", finished, "--max", "latency_ms=0.001")
    assert result.exit_code == 0
    assert "the front is empty" in result.stdout


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_pareto_draws_its_plot(nas: Any, finished: str, tmp_path: Path, suffix: str) -> None:
    plot = tmp_path / f"front.{suffix}"
    result = nas("pareto", finished, "--max", "latency_ms=8", "--plot", str(plot))
    assert result.exit_code == 0
    assert str(plot) in result.stdout
    content = plot.read_bytes()
    if suffix == "png":
        assert content.startswith(b"\x89PNG")
        return
    text = content.decode()
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])  # noqa: S314 - ours
    marks = [e for e in svg.iter() if str(e.get("id", "")).startswith("trial-")]
    front = nas.json("pareto", finished, "--max", "latency_ms=8")
    assert len(marks) == len(front["items"])
    if suffix == "html":
        assert "<table>" in text
        assert len(re.findall("<title>trial", text)) == len(marks)
        assert not re.search(r'(src|href)="(?!#)', text)


def test_plot_with_json_keeps_standard_output_for_the_document(
    nas: Any, finished: str, tmp_path: Path
) -> None:
    plot = tmp_path / "front.svg"
    result = nas("pareto", finished, "--json", "--plot", str(plot))
    assert json.loads(result.stdout)["items"]
    assert str(plot) in result.stderr
    assert plot.is_file()


def test_export_unpacks_a_configuration(
    nas: Any, service: Any, finished: str, tmp_path: Path
) -> None:
    best = nas.json("trials", finished, "--state", "completed", "--sort", "loss")["items"][0]
    worker = threading.Thread(target=service.serve_export)
    worker.start()
    result = nas("export", finished, "--trial", str(best["number"]), "-o", str(tmp_path / "out"))
    worker.join()
    assert result.exit_code == 0, result.stderr
    config = tmp_path / "out" / "config.json"
    assert f"nas train {config}\n" in result.stdout
    assert read_config(config).architecture.fingerprint() == best["fingerprint"]


def test_export_of_a_search_on_uploaded_data_says_that_training_needs_them(
    nas: Any, service: Any, finished: str, tmp_path: Path
) -> None:
    front = {trial["id"] for trial in nas.json("pareto", finished)["items"]}
    completed = nas.json("trials", finished, "--state", "completed")["items"]
    # exports are kept: one that no other test asks for
    trial = next(trial["id"] for trial in completed if trial["id"] not in front)
    worker = threading.Thread(target=service.serve_export, kwargs={"dataset": "my-corpus"})
    worker.start()
    result = nas("export", finished, "--trial", trial, "-o", str(tmp_path))
    worker.join()
    assert f"nas train {tmp_path / 'config.json'} --data FILE\n" in result.stdout
    assert "uploaded as my-corpus" in result.stdout


def test_export_for_transformers_says_where_its_commands_are(
    nas: Any, service: Any, finished: str, tmp_path: Path
) -> None:
    worker = threading.Thread(target=service.serve_export)
    worker.start()
    result = nas("export", finished, "--format", "huggingface", "-o", str(tmp_path))
    worker.join()
    assert result.exit_code == 0, result.stderr
    assert f"4 files in {tmp_path}" in result.stdout
    assert str(tmp_path / "README.md") in result.stdout
    assert (tmp_path / "modeling_paretoformer.py").is_file()


def test_export_of_the_knee_as_json(nas: Any, service: Any, finished: str, tmp_path: Path) -> None:
    worker = threading.Thread(target=service.serve_export)
    worker.start()
    done = nas.json("export", finished, "--trial", "knee", "-o", str(tmp_path))
    worker.join()
    assert done["export"]["trial"] == nas.json("pareto", finished)["knee"]
    assert done["files"] == ["config.json"]
    assert Path(done["config"]).is_file()


def test_failed_export_fails_and_says_why(
    nas: Any, service: Any, finished: str, tmp_path: Path
) -> None:
    front = {trial["id"] for trial in nas.json("pareto", finished)["items"]}
    completed = nas.json("trials", finished, "--state", "completed")["items"]
    # exports are kept: one that no other test asks for
    first, *_, last = (trial["id"] for trial in completed if trial["id"] not in front)
    assert first != last
    worker = threading.Thread(target=service.serve_export, kwargs={"error": "checkpoint is gone"})
    worker.start()
    said = nas.refused("export", finished, "--trial", last, "-o", str(tmp_path / "none"), code=1)
    worker.join()
    assert "checkpoint is gone" in said
    assert not (tmp_path / "none").exists()
