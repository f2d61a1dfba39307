"""Text: the next byte at every position.

The text ``b"x = [1, 2]"`` with sequences of N = 4 bytes gives, from offset 4::

    tokens   91  49  44  32      [ 1 , ␣
    targets  49  44  32  50      1 , ␣ 2

A training sequence starts anywhere in the training part; held-out sequences do not overlap.
Models that remember the segment before read each part in lanes instead (``nas.tasks.streams``).

``python-source`` is the standard library's own source. It is split by file, so that no file is in
two parts.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.atomic import replacing
from nas.catalogue.tasks import BYTES, PYTHON_SOURCE, TextLM
from nas.errors import DataUnavailable
from nas.tasks.base import Batch, HeldOut
from nas.tasks.python_source import source_files
from nas.tasks.sampling import frequency_loss, spread_batches
from nas.tasks.streams import StreamBatch, evaluation_segments, training_segments
from search_spaces.errors import InvalidInput, Problem

Bytes = NDArray[np.uint8]

SPLIT_REVISION = 1
"""Part of the data hash: raised when the same bytes are split in another way."""

END_OF_FILE = b"\0"  # a byte that Python source cannot hold
HELD_OUT_PERCENT = 5
CHUNK = 1 << 24


@dataclass(frozen=True)
class Parts:
    """Where each part of a text begins and ends, in bytes."""

    train: slice
    validation: slice
    test: slice


class TextTask:
    """A text of bytes with its three parts, read through a memory map."""

    def __init__(self, config: TextLM, text: Bytes, parts: Parts) -> None:
        self.config = config
        self.shape = config.shape()
        self._training = text[parts.train]
        self._held_out: dict[HeldOut, Bytes] = {
            "validation": text[parts.validation],
            "test": text[parts.test],
        }
        self.data_hash = _data_hash(text, parts)
        self.trivial_loss = frequency_loss(
            _byte_counts(self._training), _byte_counts(self._held_out["validation"])
        )

    def training_batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """B sequences from uniform offsets."""
        last = len(self._training) - self.config.sequence_length
        starts = np.random.default_rng((seed, step)).integers(0, last, batch_size)
        return self._batch(self._training, starts)

    def evaluation_batches(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[Batch]:
        """Sequences that do not overlap, spread over the part."""
        text = self._held_out[split]
        sequences = (len(text) - 1) // self.config.sequence_length
        for chosen in spread_batches(sequences, batch_size, limit):
            yield self._batch(text, chosen * self.config.sequence_length)

    def stream_batch(self, step: int, batch_size: int, seed: int) -> StreamBatch:
        """B segments, each of which goes on where the one of the step before ended."""
        text, length = self._training, self.config.sequence_length
        segments = training_segments(step, batch_size, seed, size=len(text), length=length)
        return StreamBatch(self._batch(text, segments.starts), segments.fresh)

    def evaluation_stream(
        self, split: HeldOut, batch_size: int, limit: int | None
    ) -> Iterator[StreamBatch]:
        """The sequences of ``evaluation_batches``, in lanes: with a limit, their beginnings."""
        text, length = self._held_out[split], self.config.sequence_length
        for starts, fresh in evaluation_segments(batch_size, limit, size=len(text), length=length):
            yield StreamBatch(self._batch(text, starts), fresh)

    def _batch(self, text: Bytes, starts: NDArray[np.int64]) -> Batch:
        length = self.config.sequence_length
        windows = torch.from_numpy(np.stack([text[s : s + length + 1] for s in starts])).long()
        tokens: Tensor = windows[:, :-1].contiguous()
        return Batch(tokens, windows[:, 1:].contiguous())


def build(config: TextLM, dataset: Path | None, cache: Path) -> TextTask:
    """The text of ``dataset``, or the standard library's where the settings name it.

    Raises:
        InvalidInput: the text is too short for the sequence length.
        DataUnavailable: the data set is not there or cannot be read.
    """
    if dataset is not None:
        return TextTask(config, *_user_text(config, dataset))
    if config.dataset == PYTHON_SOURCE:
        return TextTask(config, *_python_source(config, cache))
    raise DataUnavailable(
        f"the text of data set {config.dataset!r} is not here: upload it, or name its file"
    )


def _user_text(config: TextLM, path: Path) -> tuple[Bytes, Parts]:
    try:
        size = path.stat().st_size
        if (needed := config.minimum_bytes()) > size:
            message = f"{size} bytes are too few for sequences of {config.sequence_length}"
            raise InvalidInput([Problem("/task/dataset", message, (f"{needed} bytes or more",))])
        text = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise DataUnavailable(f"cannot read {path}: {error}") from error
    held_out = config.held_out_bytes(size)
    first, second = size - 2 * held_out, size - held_out
    return text, Parts(slice(0, first), slice(first, second), slice(second, size))


def _python_source(config: TextLM, cache: Path) -> tuple[Bytes, Parts]:
    root = Path(sysconfig.get_path("stdlib"))
    groups = _split_files(source_files(root))
    bounds = np.cumsum([0, *(sum(size + len(END_OF_FILE) for _, size in g) for g in groups)])
    target = cache / f"{PYTHON_SOURCE}-{_listing_key(root, groups)}.bin"
    try:
        if not target.exists():
            with replacing(target) as temporary, temporary.open("wb") as out:
                for group in groups:
                    for relative, _ in group:
                        out.write((root / relative).read_bytes() + END_OF_FILE)
        text = np.memmap(target, dtype=np.uint8, mode="r")
    except OSError as error:
        raise DataUnavailable(f"cannot gather the source under {root}: {error}") from error
    if len(text) != bounds[-1]:
        raise DataUnavailable(f"{target} is damaged: delete it, and it is made again")
    train, validation, test = (slice(int(a), int(b)) for a, b in pairwise(bounds))
    if min(bounds[2] - bounds[1], bounds[3] - bounds[2]) < config.held_out_minimum():
        raise DataUnavailable(
            f"the source under {root} is too little for sequences of {config.sequence_length}"
        )
    return text, Parts(train, validation, test)


def _split_files(files: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], ...]:
    """Train, validation, test: by the digest of each path, until both held-out parts are full."""
    share = sum(size for _, size in files) * HELD_OUT_PERCENT // 100
    in_turn = sorted(files, key=lambda file: hashlib.sha256(file[0].encode()).digest())
    parts: list[list[tuple[str, int]]] = [[], [], []]
    filled = [0, 0]
    for file in in_turn:
        # small files only: one large file would make up a held-out part by itself
        open_part = next((i for i in (0, 1) if filled[i] < share and file[1] * 8 <= share), None)
        if open_part is None:
            parts[0].append(file)
        else:
            parts[open_part + 1].append(file)
            filled[open_part] += file[1]
    return tuple(sorted(part) for part in parts)


def _listing_key(root: Path, groups: tuple[list[tuple[str, int]], ...]) -> str:
    """What the cached file was made of, without reading it: paths, sizes and times of change."""
    digest = hashlib.sha256(f"{SPLIT_REVISION} {root}".encode())
    for group in groups:
        for relative, size in group:
            changed = (root / relative).stat().st_mtime_ns
            digest.update(f"\n{relative} {size} {changed}".encode())
    return digest.hexdigest()[:16]


def _data_hash(text: Bytes, parts: Parts) -> str:
    bounds = (parts.train.stop, parts.validation.stop, parts.test.stop)
    digest = hashlib.sha256(f"text split {SPLIT_REVISION} at {bounds}\n".encode())
    for start in range(0, len(text), CHUNK):
        digest.update(text[start : start + CHUNK].data)
    return digest.hexdigest()


def _byte_counts(text: Bytes) -> NDArray[np.int64]:
    counts = np.zeros(BYTES, dtype=np.int64)
    for start in range(0, len(text), CHUNK):  # a bincount of all would hold eight times the text
        counts += np.bincount(text[start : start + CHUNK], minlength=BYTES)
    return counts
