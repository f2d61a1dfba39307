"""Ray Tune as the engine: segments are its trials, and what it is told to run next is all ours.

Its scheduler stays FIFO. Nothing that Tune keeps is relied upon after a crash: rows are the truth.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE
from ray.tune.search import Searcher

from nas.schemas import Resources
from workers.capacity import slots
from workers.segments import Assignment, Bench, Outcome, SegmentTrainable


class Finished:
    """There is nothing left to run."""


class Source(Protocol):
    """Decides what runs next and takes what came of it; called in Tune's loop, so it is quick."""

    def next(self) -> Assignment | Finished | None:
        """The next segment; None: not now, others must end first."""

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        """A segment came to an end."""

    def lost(self, assignment: Assignment) -> None:
        """A segment's process died under it."""


class SegmentSearcher(Searcher):
    """Adapts a source of segments to Tune's suggest and complete."""

    def __init__(self, source: Source) -> None:
        super().__init__(metric="outcome", mode="min")
        self._source: Source | None = source
        self._error: Exception | None = None
        self._running: dict[str, Assignment] = {}

    def suggest(  # type: ignore[override]  # Tune takes FINISHED, a string, too
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """The next segment as a Tune configuration."""
        if self._source is None:
            return str(Searcher.FINISHED)
        self.check()
        chosen = self._source.next()
        if chosen is None:
            return None
        if isinstance(chosen, Finished):
            return str(Searcher.FINISHED)
        self._running[trial_id] = chosen
        return asdict(chosen)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hand the outcome on; a segment without one has lost its actor."""
        assignment = self._running.pop(trial_id, None)
        if assignment is None or self._source is None:
            return
        try:
            if error or not result or "outcome" not in result:
                self._source.lost(assignment)
            else:
                self._source.ended(assignment, Outcome.from_result(result))
        except Exception as failure:  # noqa: BLE001 - Tune would log it and go on without the result
            self._error = failure

    def check(self) -> None:
        """Raise what went wrong when an outcome was recorded: nothing may go on without it."""
        if self._error is not None:
            raise self._error

    def save(self, checkpoint_path: str) -> None:
        """Nothing: rows are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: rows are the truth."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles whatever it can reach: keep database engines and strategies out of it
        return {**self.__dict__, "_source": None, "_error": None}


def use_started_processes() -> None:
    """Let Tune's actors live in processes that a private Ray has started ahead.

    Tune gives its actors a runtime environment, for which Ray starts new processes, each importing
    torch for seconds. All that it would hold stands in the environment of our Ray already.
    """
    DEFAULT_ENV_VARS.clear()
    for name in ENV_VARS_TO_PROPAGATE:
        os.environ.pop(name, None)


def run_segments(source: Source, bench: Bench, resources: Resources, scratch: Path) -> None:
    """Run what the source gives until it is finished; ``scratch`` is Tune's own and goes away."""
    scratch.mkdir(parents=True, exist_ok=True)
    trainable = tune.with_resources(
        tune.with_parameters(SegmentTrainable, bench=bench),
        {"cpu": resources.threads, "gpu": resources.gpus},
    )
    searcher = SegmentSearcher(source)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=slots(resources),
            reuse_actors=True,
            metric="outcome",
            mode="min",
        ),
        run_config=tune.RunConfig(
            name="segments",
            storage_path=str(scratch.resolve()),
            verbose=0,
            log_to_file=False,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
        searcher.check()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
