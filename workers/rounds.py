"""Verified members timed side by side on the cluster, in rounds that hold all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nas.measure.latency import time_rounds
from workers.measuring import Subject, forward_passes, on_idle_node
from workers.segments import Bench

ROUNDS = 24


@dataclass(frozen=True)
class Rounds:
    """Milliseconds by trial, round by round; the seconds that they took together.

    alone: whether nothing else ran on the node meanwhile.
    """

    milliseconds: dict[str, list[float]]
    seconds: float
    alone: bool


def rounds_on_cluster(
    subjects: Sequence[Subject], bench: Bench, *, seconds: float, seed: int
) -> Rounds:
    """Time these models for about so many seconds on an idle node."""
    rounds: Rounds = on_idle_node(_measure, list(subjects), bench, seconds, seed)
    return rounds


def _measure(subjects: list[Subject], bench: Bench, seconds: float, seed: int) -> Rounds:
    began = time.perf_counter()
    passes = forward_passes(subjects, bench)
    timed = time_rounds(passes, rounds=ROUNDS, seconds=seconds, seed=seed)
    return Rounds(timed.milliseconds, time.perf_counter() - began, timed.alone)
