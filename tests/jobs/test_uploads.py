"""Uploads: whole, bounded and under the name of their content, or not there at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.jobs.uploads import received
from search_spaces.errors import InvalidInput


def test_an_upload_settles_under_its_hash(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "datasets"
    with received(folder, [b"ab", b"", b"c"], limit=3) as upload:
        assert upload.size == 3
        assert upload.sha256 == hashlib.sha256(b"abc").hexdigest()
        upload.settle(folder)
    assert [path.name for path in folder.iterdir()] == [upload.sha256]
    assert (folder / upload.sha256).read_bytes() == b"abc"


def test_an_upload_that_is_not_settled_is_gone(tmp_path: Path) -> None:
    with received(tmp_path, [b"abc"], limit=3):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chunks", [[], [b""], [b"abcd"], [b"ab", b"cd"]])
def test_too_little_or_too_much_leaves_nothing(tmp_path: Path, chunks: list[bytes]) -> None:
    with pytest.raises(InvalidInput), received(tmp_path, chunks, limit=3):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError

    with pytest.raises(ConnectionError), received(tmp_path, broken(), limit=10):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_stream_without_end_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 100

    with pytest.raises(InvalidInput), received(tmp_path, endless(), limit=1000):
        pass
    assert taken == 11
