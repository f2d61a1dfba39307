"""Problems found in what comes from outside: what is wrong, where, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault: a JSON pointer into the input, what is wrong, and what would be right."""

    pointer: str
    message: str
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.pointer}: " if self.pointer else ""
        allowed = f" (allowed: {', '.join(self.allowed)})" if self.allowed else ""
        return f"{where}{self.message}{allowed}"

    def under(self, prefix: str) -> Problem:
        """The same fault seen from a document that holds this one at ``prefix``."""
        return Problem(prefix + self.pointer, self.message, self.allowed)


class InvalidInput(ValueError):
    """Input that cannot be used, with every problem found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(p) for p in problems))
        self.problems = tuple(problems)


class InvalidArchitecture(InvalidInput):
    """A combination that the validity table refuses."""


class InvalidSpace(InvalidInput):
    """A search-space definition that cannot be used."""


def pointer(parts: Sequence[int | str]) -> str:
    """A JSON pointer (RFC 6901) from keys and indices."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in parts)
