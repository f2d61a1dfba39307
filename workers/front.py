"""The front is timed when the search is over: what was predicted gives way to what was measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from nas.latency import LatencyTable, Measured, Mode
from nas.latency.table import METRIC
from nas.schemas import Front
from nas.states import TrialState
from nas.store import Store, measurements
from nas.store import trials as trial_rows
from nas.store.records import TrialRecord
from search_spaces import Architecture
from workers.measuring import Subject, Timed

MODES: dict[str, Mode] = {metric: mode for mode, metric in METRIC.items()}


class FrontTiming:
    """Times members of the front until it holds none whose latency is only predicted.

    After each round the table is corrected by what was measured, and with it what is predicted of
    the others; so a member that turns out to break a bound leaves the front, and whoever comes in
    its place is measured as well. Rows decide what is left to do.
    """

    def __init__(
        self,
        store: Store,
        job: str,
        token: int,
        table: LatencyTable,
        *,
        front: Callable[[], Front],
        subjects: Callable[[Collection[str]], Sequence[Subject]],
        draining: Callable[[], bool],
    ) -> None:
        self._store = store
        self._job = job
        self._token = token
        self._table = table
        self._front = front
        self._subjects = subjects
        self._draining = draining
        self._alone = True
        with store.read() as session:
            records = trial_rows.all(session, job, with_curve=False)
            done = measurements.of_job(session, job)
        trained = (TrialState.COMPLETED, TrialState.REUSED)
        self._trained = {r.id: r for r in records if r.state in trained}
        self._measured: dict[str, dict[Mode, float]] = {}
        for row in done:
            if row.metric in MODES:
                self._measured.setdefault(row.trial_id, {})[MODES[row.metric]] = row.measured

    def run(self, time: Callable[[Sequence[Subject]], Timed]) -> LatencyTable | None:
        """Measure; the corrected table, where all of it was measured on an idle machine."""
        timed_any = False
        while not self._draining():
            wanted = self._wanted()
            if not wanted:
                break
            timed = time(self._subjects(wanted))
            self._record(timed)
            self._correct()
            timed_any, self._alone = True, self._alone and timed.alone
        return self._corrected() if timed_any and self._alone else None

    def _wanted(self) -> set[str]:
        """Members of the front, and adaptive models: predicted at their worst, they may be fast."""
        front = self._front()
        members = {trial.id for trial in [*front.items, *front.homogeneous]}
        return (members | {t for t in self._trained if self._adaptive(t)}) - self._measured.keys()

    def _adaptive(self, trial: str) -> bool:
        return _architecture(self._trained[trial]).halting.adaptive

    def _record(self, timed: Timed) -> None:
        """Put the measured values in the place of the predicted ones, and keep both side by side;
        of an adaptive model a bound was known, which is no prediction."""
        with self._store.write() as session:
            for trial, modes in timed.at_anchor(self._table.anchor_ms).items():
                metrics = dict(self._table.metrics_of(modes))
                if trial in timed.joules:
                    metrics["energy_j"] = timed.joules[trial]
                trial_rows.set_metrics(session, trial, self._token, metrics)
                for mode, milliseconds in modes.items():
                    said = self._trained[trial].metrics.get(METRIC[mode])
                    known = None if self._adaptive(trial) else said
                    measurements.put(
                        session,
                        trial,
                        METRIC[mode],
                        measured=milliseconds,
                        alone=timed.alone,
                        predicted=known,
                        interval=None if known is None else self._table.interval(mode, known),
                    )
                self._measured[trial] = modes

    def _correct(self) -> None:
        """Predict anew, by the corrected table, what was not measured."""
        table = self._corrected()
        with self._store.write() as session:
            for trial, record in self._trained.items():
                if trial not in self._measured:
                    predicted = table.metrics(_architecture(record))
                    trial_rows.set_metrics(session, trial, self._token, predicted)

    def _corrected(self) -> LatencyTable:
        table = self._table
        for mode in table.modes:
            measured = [
                Measured(_architecture(self._trained[trial]), modes[mode])
                for trial, modes in self._measured.items()
                if trial in self._trained and mode in modes and not self._adaptive(trial)
            ]
            table = table.corrected(mode, measured)
        return table


def _architecture(record: TrialRecord) -> Architecture:
    return Architecture.model_validate(record.architecture)
