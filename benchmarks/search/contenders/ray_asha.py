"""Ray Tune: ASHA on the loss, OptunaSearch (TPE) on both objectives, actors used again."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.search.contenders import COST, OBJECTIVES, QUALITY, SLOTS, STEPS, Proposal
from benchmarks.search.own_bed import FIDELITY, SPACE
from benchmarks.search.samplers import distributions, tpe
from search_spaces import load_space
from workers.cluster import Cluster


class Climbing(tune.Trainable):
    """A trial: each result is a rung."""

    def setup(  # type: ignore[override]  # how tune.with_parameters passes it
        self, config: dict[str, int], seed: int, folder: Path
    ) -> None:
        """Take the first proposal; the data are loaded once an actor."""
        self.seed = seed
        self.folder = folder
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, int]) -> bool:
        """Take the next proposal."""
        self.proposal = Proposal(new_config, self.seed, self.folder)
        self.rungs = iter(STEPS)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung."""
        steps = next(self.rungs)
        loss = self.proposal.loss(steps)
        costs = {COST: self.proposal.parameters}
        return {"steps": steps, QUALITY: loss, **costs, "done": steps == STEPS[-1]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: segments keep their own checkpoints."""


def search(deadline: float, seed: int, folder: Path) -> None:
    """Run Tune until the deadline."""
    with Cluster("local") as cluster:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        tuner(deadline, seed, folder).fit()
        ray.shutdown()


def tuner(deadline: float, seed: int, folder: Path) -> tune.Tuner:
    """Tune's own search and scheduler, in the lean setting that ours has."""
    searcher = OptunaSearch(
        distributions(load_space(SPACE).domains()),
        metric=list(OBJECTIVES),
        mode=["min"] * len(OBJECTIVES),
        sampler=tpe(seed),
    )
    scheduler = AsyncHyperBandScheduler(
        time_attr="steps",
        metric=QUALITY,
        mode="min",
        max_t=STEPS[-1],
        grace_period=STEPS[0],
        reduction_factor=FIDELITY.reduction_factor,
    )
    trainable = tune.with_parameters(Climbing, seed=seed, folder=folder)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=SLOTS,
            reuse_actors=True,
            time_budget_s=max(1.0, deadline - time.time()),
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0, log_to_file=False),
    )
