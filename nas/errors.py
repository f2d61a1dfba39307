"""The errors that cross rooms. Each says what was wrong, where, and what is allowed.

``search_spaces.errors.InvalidInput`` (with its pointers) is the fifth: input that cannot be used.
"""

from __future__ import annotations


class NasError(Exception):
    """Base of the errors below; its text is meant for the user."""


class NotFound(NasError):
    """No job, trial, export, data set or space of that name."""


class Conflict(NasError):
    """The thing exists but its state does not allow what was asked."""


class LeaseLost(NasError):
    """Another process holds the lease by now: nothing was written, and nothing may be."""


class StoreUnavailable(NasError):
    """The database cannot be opened or reached."""


class TrialFailed(NasError):
    """One trial cannot go on (diverged, out of memory, corrupt checkpoint); the job can."""


class CorruptCheckpoint(TrialFailed):
    """A checkpoint cannot be read; training from the start would give the same again."""


class DataUnavailable(NasError):
    """A data set is missing, damaged or cannot be read."""


class StorageFailed(NasError):
    """A file cannot be written: the disk is full, or refuses."""


class Unsupported(NasError):
    """A combination that this version names but cannot carry out (a format, a device)."""
