"""Optuna's NSGA-II: one study in a journal, processes that ask, train and tell."""

from __future__ import annotations

import time
from multiprocessing import get_context
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.search.contenders import OBJECTIVES, SLOTS, STEPS, Proposal
from benchmarks.search.own_bed import SPACE
from benchmarks.search.samplers import distributions, nsga2
from nas.errors import TrialFailed
from search_spaces import load_space


def search(deadline: float, seed: int, folder: Path) -> None:
    """Let the processes run until the deadline."""
    context = get_context("spawn")
    workers = [context.Process(target=optimise, args=(seed, n, folder)) for n in range(SLOTS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, deadline - time.time()))
    failed = any(worker.exitcode for worker in workers)
    for worker in workers:
        worker.terminate()
        worker.join()
    if failed:
        raise RuntimeError("a process of Optuna's has failed before the deadline")


def optimise(seed: int, worker: int, folder: Path) -> None:
    """Ask, train and tell until the process is ended."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    coded = distributions(load_space(SPACE).domains())
    study = optuna.create_study(
        study_name="nsga2",
        storage=JournalStorage(JournalFileBackend(str(folder / "journal"))),
        load_if_exists=True,
        directions=["minimize"] * len(OBJECTIVES),
        sampler=nsga2(SLOTS * seed + worker),
    )
    while True:
        trial = study.ask(coded)
        proposal = Proposal(trial.params, seed, folder)
        try:
            loss = proposal.loss(STEPS[-1])
        except TrialFailed:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [loss, proposal.parameters])
