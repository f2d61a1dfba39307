"""Discrete choices that a second computation of the same thing has to make again.

What is computed twice (reversible layers, checkpointed ones) may differ in its last bits the second
time; a bucket or an expert that is chosen by comparing such numbers must not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Generic, TypeAlias, TypeVar

from torch import Tensor

Tape: TypeAlias = list[Tensor]
T = TypeVar("T")

_recording: ContextVar[Tape | None] = ContextVar("recording", default=None)
_replaying: ContextVar[deque[Tensor] | None] = ContextVar("replaying", default=None)


def remembered(compute: Callable[[], Tensor]) -> Tensor:
    """A choice, as integers or booleans: computed, noted on a tape, or read from one.

    It has no gradient: what is computed is detached.

    Raises:
        RuntimeError: the tape that is replayed holds fewer choices than are asked for.
    """
    replayed = _replaying.get()
    if replayed is not None:
        if not replayed:
            raise RuntimeError("more choices are asked for than were recorded")
        return replayed.popleft()
    choice = compute().detach()
    tape = _recording.get()
    if tape is not None:
        tape.append(choice)
    return choice


class _Within(Generic[T]):
    """Sets a variable of this thread while it is entered; it can be entered again and again."""

    def __init__(self, variable: ContextVar[T | None], value: Callable[[], T]) -> None:
        self._variable = variable
        self._value = value
        self._tokens: list[Token[T | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(self._variable.set(self._value()))

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._tokens.pop())


def recording(tape: Tape) -> _Within[Tape]:
    """Within it, in this thread, choices are appended to ``tape``."""
    return _Within(_recording, lambda: tape)


def replaying(tape: Tape) -> _Within[deque[Tensor]]:
    """Within it, in this thread, choices are those of ``tape``, from its beginning and in order."""
    return _Within(_replaying, lambda: deque(tape))
