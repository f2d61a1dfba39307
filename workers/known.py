"""What earlier jobs have found for the same data, recipe and rungs: not trained again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from nas.schemas import JobRequest
from nas.search.objectives import Objectives
from nas.states import TrialState
from nas.store import Store, reuse
from nas.store import trials as trial_rows
from nas.store.records import JobRecord, TrialRecord
from search_spaces import Architecture, SearchSpace, SpaceDefinition

MOST_KNOWN = 256
"""Results that a search starts from at most, the latest."""


class KnownResults:
    """Results that hold for this job as well, unless it wants none (``reuse: false``)."""

    def __init__(
        self,
        store: Store,
        job: JobRecord,
        request: JobRequest,
        costs: Callable[[Architecture], dict[str, float]],
    ) -> None:
        self._store = store
        self._job = job
        self._request = request
        self._costs = costs

    def beyond(self, held: Collection[str]) -> Iterator[tuple[Architecture, TrialRecord]]:
        """The latest of them as trials of this job, but for those fingerprints.

        Only what is of the job's space and keeps its bounds on known costs.
        """
        if not self._request.reuse:
            return
        with self._store.read() as session:
            documents = reuse.known_architectures(
                session, self._job.result_key or "", self._request.named_metrics, MOST_KNOWN
            )
        space = SearchSpace(SpaceDefinition.model_validate(self._job.space_definition))
        wanted = Objectives.of(self._request.objectives, self._request.constraints)
        for architecture in map(Architecture.model_validate, documents):
            if architecture.fingerprint() in held or not space.contains(architecture):
                continue
            if wanted.broken(self._costs(architecture)):
                continue
            if record := self.take_over(architecture, "known"):
                yield architecture, record

    def take_over(self, architecture: Architecture, origin: str) -> TrialRecord | None:
        """A trial with what an earlier job has found for the architecture, if one has."""
        if not self._request.reuse:
            return None
        with self._store.read() as session:
            known = reuse.reusable(
                session,
                architecture.fingerprint(),
                self._job.result_key or "",
                self._request.named_metrics,
            )
        if known is None:
            return None
        with self._store.write() as session:
            return trial_rows.insert(
                session,
                self._job.id,
                self._job.token,
                architecture=architecture,
                origin=origin,
                seed=self._request.seed,
                costs=self._costs(architecture),
                state=TrialState.REUSED,
                reused_from=known.id,
                metrics=known.metrics,
                rung=known.rung,
            )
