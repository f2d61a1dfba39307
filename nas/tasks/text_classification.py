"""Classification of texts as bytes.

The row ``{"text": "ab", "label": "good"}`` of data whose labels are bad, good::

    tokens   98 99          each byte plus one: 0 is padding
    target   1              labels in alphabetical order

A text longer than the sequence is cut. Of each label a tenth of the texts validates and a tenth
tests, by the digest of the text, so that more data moves none from one part to another; a text that
comes again counts once.

``python-source`` asks which package of the standard library a piece of source comes from. Its
pieces are split by file.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.catalogue.tasks import PYTHON_PACKAGES, TextClassification
from nas.errors import DataUnavailable
from nas.labelled import read
from nas.tasks.examples import Examples, ExampleTask, Part
from nas.tasks.python_source import source_files
from search_spaces.errors import InvalidInput, Problem

HELD_OUT = 0.1
FEWEST = 10
"""Texts that each label must have, at least: one to validate, one to test."""
PIECES_OF_A_FILE = 32
"""So that a few large files are not most of a label."""


class Group(NamedTuple):
    """Texts that stay together in one part, in bytes."""

    key: bytes
    texts: Sequence[bytes]


def build(config: TextClassification, dataset: Path | None, cache: Path) -> ExampleTask:
    """The texts of ``dataset``, or the standard library's where the settings name it.

    Raises:
        InvalidInput: rows or labels that cannot be used.
        DataUnavailable: the data set is not there or cannot be read.
    """
    if dataset is not None:
        groups = _labelled(config, dataset)
    elif config.uploaded is None:
        groups = _packages(config)
    else:
        raise DataUnavailable(
            f"the texts of data set {config.dataset!r} are not here: upload them, or name the file"
        )
    return ExampleTask(config, _split(groups))


def _labelled(config: TextClassification, path: Path) -> dict[str, list[Group]]:
    """Each label's texts, cut to length, none twice."""
    seen: set[bytes] = set()
    groups: dict[str, list[Group]] = defaultdict(list)
    for row in read(path, "/task/dataset"):
        text = row.text.encode()
        key = hashlib.sha256(text).digest()
        if key not in seen:
            seen.add(key)
            groups[row.label].append(Group(key, [text[: config.sequence_length]]))
    if len(groups) != config.classes:
        named = ", ".join(sorted(groups)[:20])
        message = f"the data have {len(groups)} labels, not {config.classes}: {named}"
        raise InvalidInput([Problem("/task/classes", message, (str(len(groups)),))])
    rare = [label for label, found in sorted(groups.items()) if len(found) < FEWEST]
    if rare:
        raise InvalidInput(
            [
                Problem(
                    "/task/dataset",
                    f"label {label!r} has {len(groups[label])} different texts",
                    (f"{FEWEST} or more",),
                )
                for label in rare[:5]
            ]
        )
    return groups


def _packages(config: TextClassification) -> dict[str, list[Group]]:
    """Pieces of each package's files."""
    root = Path(sysconfig.get_path("stdlib"))
    groups: dict[str, list[Group]] = {package: [] for package in PYTHON_PACKAGES}
    for relative, _ in source_files(root):
        package = relative.split("/")[0]
        if package in groups:
            try:
                content = (root / relative).read_bytes()
            except OSError as error:
                raise DataUnavailable(f"cannot read {root / relative}: {error}") from error
            pieces = list(_pieces(content, config.sequence_length))
            key = hashlib.sha256(relative.encode()).digest()
            groups[package].append(Group(key, pieces[:PIECES_OF_A_FILE]))
    if few := [package for package, found in groups.items() if len(found) < 3]:
        raise DataUnavailable(f"the source of {', '.join(few)} is not under {root}")
    return groups


def _pieces(content: bytes, length: int) -> Iterator[bytes]:
    """A file cut into pieces; what is left at its end counts when it is half as long."""
    for start in range(0, len(content), length):
        piece = content[start : start + length]
        if start == 0 or 2 * len(piece) >= length:
            yield piece


def _split(groups: Mapping[str, list[Group]]) -> dict[Part, Examples]:
    """Of each label the first groups by key validate, the next test, the rest train."""
    parts: dict[Part, list[tuple[bytes, int]]] = {"train": [], "validation": [], "test": []}
    for target, label in enumerate(sorted(groups)):
        wanted = HELD_OUT * sum(len(group.texts) for group in groups[label])
        filled = {"validation": 0, "test": 0}
        for group in sorted(groups[label]):
            part: Part = "train"
            for held_out in ("validation", "test"):
                if part == "train" and filled[held_out] < wanted:
                    part = held_out
                    filled[held_out] += len(group.texts)
            parts[part] += ((text, target) for text in group.texts)
    return {part: _examples(rows) for part, rows in parts.items()}


def _examples(rows: Sequence[tuple[bytes, int]]) -> Examples:
    content = np.frombuffer(b"".join(text for text, _ in rows), dtype=np.uint8)
    bounds = np.cumsum([0, *(len(text) for text, _ in rows)], dtype=np.int64)
    targets = np.array([target for _, target in rows], dtype=np.uint16)
    return Examples(content.astype(np.uint16) + 1, bounds, targets)
