"""The archive that an export travels in: a flat folder of files whose names each format knows."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nas.atomic import replacing
from nas.training.config import LARGEST_CONFIG
from search_spaces.errors import InvalidInput, Problem

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "weights.safetensors"
SMALLEST_TIME = (1980, 1, 1, 0, 0, 0)  # the same export is the same file


class Members(NamedTuple):
    """What an archive holds: these in any case, and nothing whose name does not match."""

    always: tuple[str, ...]
    allowed: re.Pattern[str]


MEMBERS: Mapping[str, Members] = {
    "config": Members((CONFIG_NAME,), re.compile(r"config\.json|weights\.safetensors")),
    "huggingface": Members(
        (CONFIG_NAME, "README.md", "model.safetensors"),
        re.compile(
            r"README\.md|(\w+_)?config\.json|tokenizer\.json|model\.safetensors"
            r"|(configuration_|modeling_)?paretoformer(_\w+)?\.py",
            re.ASCII,
        ),
    ),
}
"""By format."""


def pack(target: Path, files: Mapping[str, Path]) -> None:
    """Write an archive of these files, by their names in it, uncompressed; whole or not at all."""
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, path in files.items():
            member = zipfile.ZipInfo(name, SMALLEST_TIME)
            member.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(member, "w") as out:
                shutil.copyfileobj(source, out)


def unpack(archive_path: Path, folder: Path, format_name: str = "config") -> Path:
    """Put the known members of an export into ``folder``; the path of its configuration.

    Raises:
        InvalidInput: not an archive of this format: other members, compressed ones, one damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = archive.infolist()
            _check(archive_path, members, MEMBERS[format_name])
            # the configuration last: where it is, what it names is beside it
            for member in sorted(members, key=lambda m: m.filename == CONFIG_NAME):
                with (
                    replacing(folder / member.filename) as temporary,
                    archive.open(member) as source,
                    temporary.open("wb") as out,
                ):
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:  # the last: encrypted
        raise _refused(archive_path, f"is damaged: {error}") from error
    return folder / CONFIG_NAME


def _check(path: Path, members: list[zipfile.ZipInfo], known: Members) -> None:
    """Only our names, each once, and no member larger in the folder than in the archive."""
    names = [member.filename for member in members]
    foreign = [name for name in names if not known.allowed.fullmatch(name)]
    if foreign or len(set(names)) < len(names) or not set(known.always) <= set(names):
        held = ", ".join(foreign or names) or "nothing"
        raise _refused(path, f"holds {held}", *known.always)
    size = path.stat().st_size
    for member in members:
        largest = LARGEST_CONFIG if member.filename == CONFIG_NAME else size
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > min(largest, size):
            raise _refused(path, f"has a member {member.filename} of an impossible size")


def _refused(path: Path, what: str, *allowed: str) -> InvalidInput:
    return InvalidInput([Problem("", f"{path.name} is not an export: it {what}", allowed)])
