"""Takes in a data set as a stream: bounded, hashed, and in its place only when it is complete."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nas import labelled
from nas.catalogue.tasks import DataKind
from nas.errors import StorageFailed
from search_spaces.errors import InvalidInput, Problem


@dataclass(frozen=True)
class Upload:
    """A complete upload that still lies under a temporary name."""

    path: Path
    sha256: str
    size: int

    def settle(self, folder: Path) -> None:
        """Give it its final name, unless the same content is there."""
        target = folder / self.sha256
        if not target.exists():
            os.replace(self.path, target)


def check_content(path: Path, kind: DataKind) -> None:
    """Refuse what no task could read.

    Raises:
        InvalidInput: rows that cannot be used, with their lines.
    """
    # Parquet is read by the workers: what reads it has no place in a light service
    if kind == "labelled" and labelled.format_of(path) != "parquet":
        for _ in labelled.read(path, "/file"):
            pass


@contextmanager
def received(folder: Path, chunks: Iterable[bytes], limit: int) -> Iterator[Upload]:
    """Write a stream of at most ``limit`` bytes into the folder; it is gone unless settled.

    Raises:
        InvalidInput: it is empty or longer.
        StorageFailed: it cannot be written.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".upload-", dir=folder)
    path = Path(name)
    try:
        digest, size = hashlib.sha256(), 0
        with _explained(folder), os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise InvalidInput([Problem("/file", f"more than {limit} bytes")])
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size == 0:
            raise InvalidInput([Problem("/file", "an empty file holds no data")])
        yield Upload(path, digest.hexdigest(), size)
    finally:
        with suppress(FileNotFoundError):  # it was settled
            path.unlink()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise  # it is the sender who has gone
    except OSError as error:
        raise StorageFailed(
            f"the data set cannot be written to {folder}: {error.strerror or error}"
        ) from error
