"""The settings of this process, and where each comes from."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.output import bad_input
from search_spaces.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from nas.settings import Settings


def load(**flags: object) -> Settings:
    """Settings from flags (None: not given), then ``NAS_*``, then the file, then defaults.

    Raises:
        InvalidInput: naming each setting that cannot be used and where it was given.
    """
    from nas.settings import SETTINGS_FILE, read_settings

    try:
        return read_settings(**flags)
    except InvalidInput as error:
        given = {name for name, value in flags.items() if value is not None}
        raise InvalidInput(
            [
                Problem(f"{_origin(name, given)}", problem.message, problem.allowed)
                for problem in error.problems
                for name in (problem.pointer.strip("/").partition("/")[0],)
            ]
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise bad_input(f"the settings in {SETTINGS_FILE} cannot be read: {error}") from error


def origins(settings: Settings) -> dict[str, str]:
    """Where each setting comes from: a variable, the file, or ``default``."""
    return {name: _origin(name, set()) for name in type(settings).model_fields}


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as they may be printed: without the password of the database."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    values["database"] = without_password(settings.database_url)
    return values


def without_password(url: str) -> str:
    """A URL as it may be printed."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}:***@{place}" if at and colon else url


def _origin(name: str, flags: set[str]) -> str:
    from nas.settings import SETTINGS_FILE

    if name in flags:
        return f"--{name.replace('_', '-')}"
    variable = f"NAS_{name.upper()}"
    if any(key.upper() == variable for key in os.environ):
        return variable
    file = Path(SETTINGS_FILE)
    if file.is_file() and name in tomllib.loads(file.read_text(encoding="utf-8")):
        return str(file)
    return "default"
