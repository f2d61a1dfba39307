"""Waiting when it is not a trial that is at fault but what all trials stand on: disk, data."""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 15.0
PATIENCE_SECONDS = 120.0
"""So long may segments be disturbed, with none finished in between, and be tried again."""


class Patience:
    """Pauses that double from one disturbance to the next, until something succeeds again.

    clock: seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._until = 0.0
        self._pause = FIRST_PAUSE

    @property
    def troubled(self) -> bool:
        """Whether there was a disturbance after the last success."""
        return self._since is not None

    @property
    def pausing(self) -> bool:
        """Whether nothing should be tried just now."""
        return self.troubled and self._clock() < self._until

    @property
    def exhausted(self) -> bool:
        """Whether it has lasted too long to hope for better."""
        return self._since is not None and self._clock() - self._since >= PATIENCE_SECONDS

    def disturbed(self) -> None:
        """Something was disturbed: pause; what is disturbed during a pause does not prolong it."""
        if self.pausing:
            return
        now = self._clock()
        if self._since is None:
            self._since = now
        self._until = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def relieved(self) -> None:
        """Something succeeded: all is well again."""
        self._since = None
        self._pause = FIRST_PAUSE
