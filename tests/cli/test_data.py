from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def test_data_sets_come_and_go(nas: Any, tmp_path: Path) -> None:
    file = tmp_path / "poems.txt"
    file.write_text("a rose is a rose is a rose\n" * 2000)
    added = nas.json("data", "add", str(file), "--name", "poems")
    assert added["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert added["bytes"] == file.stat().st_size
    assert "poems" in nas("data", "list").stdout
    assert [d["name"] for d in nas.json("data", "list")["items"]] == ["poems"]
    assert nas.json("data", "rm", "poems") == {"deleted": "poems"}
    assert nas.json("data", "list") == {"items": []}
    assert "poems" in nas.refused("data", "rm", "poems")


def test_data_that_cannot_be_read_are_refused(nas: Any, tmp_path: Path) -> None:
    assert "does not exist" in nas.refused("data", "add", str(tmp_path / "no"), "--name", "x")
    assert "is a folder" in nas.refused("data", "add", str(tmp_path), "--name", "x")


def test_bad_names_are_refused(nas: Any) -> None:
    assert "name" in nas.refused("data", "add", __file__, "--name", "../up")


def test_labelled_data_say_how_a_job_uses_them(nas: Any, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\na fine film,good\n")
    said = nas("data", "add", str(file), "--name", "films", "--kind", "labelled").stdout
    assert "name: text_classification, dataset: films" in said
    file.write_text("text,mark\na fine film,good\n")
    refused = nas.refused("data", "add", str(file), "--name", "marks", "--kind", "labelled")
    assert "line 1: the header has no label" in refused
