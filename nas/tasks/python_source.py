"""The standard library's own source: real text that is present on every machine.

Its test folders are left out, since some distributions do not install them, and so are the files
that record how the interpreter was built.
"""

from __future__ import annotations

import os
from pathlib import Path

from nas.errors import DataUnavailable

LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
)
BUILD_RECORDS = ("_sysconfigdata",)


def source_files(root: Path) -> list[tuple[str, int]]:
    """Relative path and size of each source file, sorted.

    Raises:
        DataUnavailable: there is none.
    """
    found: list[tuple[str, int]] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in files:
            if name.endswith(".py") and not name.startswith(BUILD_RECORDS):
                path = Path(folder, name)
                found.append((path.relative_to(root).as_posix(), path.stat().st_size))
    if not found:
        raise DataUnavailable(f"there is no Python source under {root}; use a data set instead")
    return sorted(found)
