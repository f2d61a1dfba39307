"""Opaque cursors: where a page ended, so that the next one begins behind it whatever was added."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from search_spaces.errors import InvalidInput, Problem


def encode(*parts: Any) -> str:
    """A cursor that holds these plain values."""
    document = json.dumps(parts, separators=(",", ":"))
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def decode(cursor: str, kinds: tuple[type | tuple[type, ...], ...]) -> list[Any]:
    """The values in a cursor, which must be of these types.

    Raises:
        InvalidInput: it was not made by ``encode`` for the same list.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise refused() from error
    fits = isinstance(parts, list) and len(parts) == len(kinds)
    if not fits or "\0" in "".join(p for p in parts if isinstance(p, str)):
        raise refused()
    if not all(isinstance(p, kind) for p, kind in zip(parts, kinds, strict=True)):
        raise refused()
    return list(parts)


def refused() -> InvalidInput:
    """What to raise for a cursor that does not belong to the list."""
    return InvalidInput(
        [Problem("/cursor", "not a cursor of this list in this order; start without one")]
    )
