"""Labelled texts as users bring them: JSON lines, CSV or Parquet, told apart by their content.

One text a row; two columns count: ``{"text": "a fine film", "label": "good"}``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from nas.errors import DataUnavailable
from search_spaces.errors import InvalidInput, Problem

Format: TypeAlias = Literal["jsonl", "csv", "parquet"]

TEXT, LABEL = "text", "label"
PARQUET_MAGIC = b"PAR1"
LONGEST_FIELD = 1 << 26
MOST_PROBLEMS = 5
"""So many bad rows are told at once."""


class Row(NamedTuple):
    """A text and its label; ``line``, from 1, is where it stands in the file."""

    line: int
    text: str
    label: str


def format_of(path: Path) -> Format:
    """What the content says that it is.

    Raises:
        DataUnavailable: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise DataUnavailable(f"cannot read {path}: {error}") from error
    if start.startswith(PARQUET_MAGIC):
        return "parquet"
    return "jsonl" if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "csv"


def read(path: Path, where: str) -> Iterator[Row]:
    """The rows of a file, in their order; blank lines are passed over.

    where: the pointer of what named the file, for what is wrong with it.

    Raises:
        InvalidInput: rows that cannot be used, the first few each with its line.
        DataUnavailable: the file cannot be read, or Parquet cannot be on this machine.
    """
    readers = {"jsonl": _json_lines, "csv": _csv, "parquet": _parquet}
    faults: list[Problem] = []
    try:
        for line, found in readers[format_of(path)](path):
            if isinstance(found, str):
                faults.append(Problem(where, f"line {line}: {found}"))
            elif fault := _fault(found):
                faults.append(Problem(where, f"line {line}: {fault}", (TEXT, LABEL)))
            elif not faults:
                yield Row(line, found[TEXT], str(found[LABEL]))
            if len(faults) == MOST_PROBLEMS:
                break
    except UnicodeDecodeError as error:
        faults.append(Problem(where, f"it is not UTF-8: {error.reason} at byte {error.start}"))
    except csv.Error as error:
        faults.append(Problem(where, f"it is neither JSON lines nor CSV: {error}"))
    except OSError as error:
        raise DataUnavailable(f"cannot read {path}: {error}") from error
    if faults:
        raise InvalidInput(faults)


_Found: TypeAlias = tuple[int, Mapping[str, Any] | str]
"""A line with its columns, or with what is wrong with it."""


def _fault(row: Mapping[str, Any]) -> str | None:
    missing = [name for name in (TEXT, LABEL) if row.get(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}"
    if not isinstance(row[TEXT], str) or not row[TEXT].strip():
        return "the text is empty" if isinstance(row[TEXT], str) else "the text is no string"
    if isinstance(row[LABEL], bool | int | str) and str(row[LABEL]).strip():
        return None
    return "the label is neither a word nor a whole number"


def _json_lines(path: Path) -> Iterator[_Found]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield number, f"not UTF-8: {error.reason} at its byte {error.start}"
            except ValueError as error:
                yield number, f"not JSON: {error}"
            else:
                yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv(path: Path) -> Iterator[_Found]:
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        header = reader.fieldnames or ()
        if missing := [name for name in (TEXT, LABEL) if name not in header]:
            yield 1, f"the header has no {' and no '.join(missing)}"
            return
        for row in reader:
            # what a row has beyond the header stands under None
            yield reader.line_num, "more fields than the header" if None in row else row


def _parquet(path: Path) -> Iterator[_Found]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile  # half a second to import: only for Parquet
    except ImportError as error:
        raise DataUnavailable("Parquet needs pyarrow, which is not installed here") from error
    try:
        with ParquetFile(path) as file:
            if missing := [n for n in (TEXT, LABEL) if n not in file.schema_arrow.names]:
                yield 1, f"there is no column {' and no '.join(missing)}"
                return
            batches = file.iter_batches(columns=[TEXT, LABEL])
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except ArrowException as error:
        yield 1, f"the Parquet file is damaged: {error}"
