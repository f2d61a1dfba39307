from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from nas.errors import DataUnavailable
from nas.labelled import Row, format_of, read
from search_spaces.errors import InvalidInput

ROWS = [("a fine\nfilm, ünder", "good"), ('"dull"', "bad"), ("so-so", "7")]


def written(folder: Path, kind: str) -> Path:
    """The rows above in a file whose name tells nothing."""
    path = folder / "data"
    if kind == "jsonl":
        lines = [json.dumps({"text": t, "label": x, "more": [1]}) for t, x in ROWS]
        path.write_text(lines[0] + "\n\n" + "\n".join(lines[1:]), encoding="utf-8-sig")
    elif kind == "csv":
        quoted = ['"' + t.replace('"', '""') + '"' for t, _ in ROWS]
        body = "\r\n".join(
            f"{i},{x},{t}" for i, (t, (_, x)) in enumerate(zip(quoted, ROWS, strict=True))
        )
        path.write_text("id,label,text\r\n" + body, encoding="utf-8-sig", newline="")
    else:
        columns = {"text": [t for t, _ in ROWS], "label": [x for _, x in ROWS], "n": [1, 2, 3]}
        parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("kind", "lines"), [("jsonl", [1, 3, 4]), ("csv", [3, 4, 5]), ("parquet", [1, 2, 3])]
)
def test_rows_are_read_whatever_they_are_written_in(
    tmp_path: Path, kind: str, lines: list[int]
) -> None:
    path = written(tmp_path, kind)
    assert format_of(path) == kind
    expected = [Row(n, t, x) for n, (t, x) in zip(lines, ROWS, strict=True)]
    assert list(read(path, "/file")) == expected


def faults(path: Path) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        list(read(path, "/file"))
    assert {p.pointer for p in caught.value.problems} == {"/file"}
    return [p.message for p in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b'{"text": "a", "label": 1}\n{"text": ', ["line 2: not JSON"]),
        (b'{"text": "a", "label": 1}\n["a"]\n', ["line 2: not a JSON object"]),
        (b'{"text": "a"}\n{"label": 1}', ["line 1: no label", "line 2: no text"]),
        (b'{"text": 3, "label": 1}', ["line 1: the text is no string"]),
        (b'{"text": " ", "label": 1}', ["line 1: the text is empty"]),
        (b'{"text": "a", "label": 1.5}', ["line 1: the label is neither"]),
        (b'{"text": "a", "label": 1}\n{"text": "\xff", "label": 1}', ["line 2: not UTF-8"]),
        (b"text,mark\na,b\n", ["line 1: the header has no label"]),
        (b"text,label\na,b,c\n", ["line 2: more fields"]),
        (b"text,label\na\n", ["line 2: no label"]),
        (b'text,label\n"a,b\n', ["it is neither JSON lines nor CSV"]),
        (b"text,label\n\xff\xfe,b\n", ["it is not UTF-8"]),
        (b"\x00\x01\x02", ["line 1: the header has no text and no label"]),
        (b"PAR1 and no more", ["line 1: the Parquet file is damaged"]),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, content: bytes, messages: list[str]
) -> None:
    path = tmp_path / "data"
    path.write_bytes(content)
    found = faults(path)
    assert len(found) == len(messages)
    assert all(f.startswith(m) for f, m in zip(found, messages, strict=True)), found


def test_only_the_first_faults_of_many_are_told(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text('{"text": "a"}\n' * 100)
    assert faults(path) == [f"line {i}: no label" for i in range(1, 6)]


def test_a_parquet_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    columns: dict[str, list[Any]] = {"text": ["a"], "mark": [1]}
    parquet.write_table(pyarrow.table(columns), path)
    assert faults(path) == ["line 1: there is no column label"]


def test_a_file_that_is_gone_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="cannot read"):
        list(read(tmp_path / "none", "/file"))
