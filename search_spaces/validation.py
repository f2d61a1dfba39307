"""Between pydantic's errors and ours: a problem raised inside a validator, and read back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from search_spaces.errors import Problem, pointer

_QUOTED = re.compile(r"'([^']*)'")
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def refusal(kind: str, problem: Problem) -> PydanticCustomError:
    """The error that a validator raises for this problem; its pointer is relative to the value."""
    return PydanticCustomError(
        kind,
        "{message}",
        {"message": problem.message, "pointer": problem.pointer, "allowed": problem.allowed},
    )


def refusals(title: str, kind: str, problems: Sequence[Problem]) -> ValidationError:
    """The same for several problems at once."""
    return ValidationError.from_exception_data(
        title,
        [InitErrorDetails(type=refusal(kind, p), loc=(), input=None) for p in problems],
    )


def problems_in(error: ValidationError, document: object) -> list[Problem]:
    """Every fault that pydantic found in ``document``, with pointers that exist in it."""
    found = (_problem(details, document) for details in error.errors(include_url=False))
    return list(dict.fromkeys(found))


def _problem(details: ErrorDetails, document: object) -> Problem:
    context: Mapping[str, Any] = details.get("ctx") or {}
    where = pointer(_path(details, document))
    if "pointer" in context and "message" in context:
        allowed = tuple(str(item) for item in context.get("allowed", ()))
        return Problem(where + str(context["pointer"]), str(context["message"]), allowed)
    expected = context.get("expected") or context.get("expected_tags") or ""
    bounds = [f"{sign} {context[name]}" for name, sign in _BOUNDS.items() if name in context]
    return Problem(where, details["msg"], (*_QUOTED.findall(str(expected)), *bounds))


def _path(details: ErrorDetails, document: object) -> list[int | str]:
    """The location without what pydantic adds to it: names of union members and of functions."""
    path: list[int | str] = []
    here: Any = document
    for part in details["loc"]:
        inside = part in here if isinstance(here, Mapping) else _indexes(part, here)
        if inside:
            here = here[part]
        if inside or (details["type"] == "missing" and part == details["loc"][-1]):
            path.append(part)
    return path


def _indexes(part: int | str, here: object) -> bool:
    return isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
