"""What makes a trial fail, as opposed to the job or the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.errors import TrialFailed

ALLOCATION = ("can't allocate memory", "not enough memory", "out of memory")
"""What PyTorch's RuntimeErrors say, by device, when memory is short."""


@contextmanager
def memory_failures(what: str) -> Iterator[None]:
    """Turn running out of memory into TrialFailed; every other error passes."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrialFailed(f"out of memory while {what}: {_first_line(error)}") from error
    except RuntimeError as error:
        if not any(text in str(error) for text in ALLOCATION):
            raise
        raise TrialFailed(f"out of memory while {what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
