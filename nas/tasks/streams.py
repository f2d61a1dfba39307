"""A text read on and on: for models that remember the segment before.

The text is cut into as many lanes as a batch has rows; each row reads its lane from segment to
segment. With N = 2 and two rows, ``b"abcdefghi"`` gives::

    step 0   ab   ef   fresh        step 1   cd   gh        step 2   ab   ef   fresh
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from nas.tasks.base import Batch, HeldOut, Task
from nas.tasks.sampling import Indices


@dataclass(frozen=True)
class StreamBatch:
    """A batch whose rows go on where those of the last one ended.

    fresh: they do not: all rows begin anew, and nothing before is to be remembered. A batch may
    have fewer rows than the last one: the first ones go on.
    """

    batch: Batch
    fresh: bool


@runtime_checkable
class StreamedTask(Task, Protocol):
    """A task whose data are one long sequence."""

    def stream_batch(self, step: int, batch_size: int, seed: int) -> StreamBatch:
        """The batch of a step (from 0). Nothing is remembered: same arguments, same batch."""

    def evaluation_stream(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[StreamBatch]:
        """At most ``limit`` batches, always the same ones, of lanes spread over the split."""


class Segments(NamedTuple):
    """Where each row's segment starts, (B,), and whether the rows begin anew."""

    starts: Indices
    fresh: bool


def training_segments(step: int, batch_size: int, seed: int, *, size: int, length: int) -> Segments:
    """Of a text of ``size`` items, in segments of N items and the one that follows.

    All lanes end together; then they are read again, from a start that the seed shifts.
    """
    last = size - length - 1  # where the last segment may start
    lane, segments = (size - 1) // batch_size, (size - 1) // batch_size // length
    if segments == 0:  # a short text: the rows overlap, and each segment is a whole lane
        lane, segments = last // (batch_size - 1), 1
    shifts = last - (batch_size - 1) * lane - (segments - 1) * length
    reading, segment = divmod(step, segments)
    shift = np.random.default_rng((seed, reading)).integers(0, shifts + 1)
    starts = np.arange(batch_size, dtype=np.int64) * lane + segment * length + shift
    return Segments(starts, segment == 0)


def evaluation_segments(
    batch_size: int, limit: int | None, *, size: int, length: int
) -> Iterator[Segments]:
    """All whole segments of a text, or the first ``limit`` of each lane."""
    segments = (size - 1) // length
    rows = min(batch_size, segments)
    each, longer = divmod(segments, rows)
    lanes = np.arange(rows, dtype=np.int64)
    begins = lanes * each + np.minimum(lanes, longer)  # the first lanes have one segment more
    steps = each + (1 if longer else 0)
    for step in range(steps if limit is None else min(steps, limit)):
        here = begins if step < each else begins[:longer]
        yield Segments((here + step) * length, step == 0)
