"""Searches over the survey's spaces: trials of every mechanism train, and none fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from nas.models import list_mechanisms
from nas.states import JobState, TrialState
from search_spaces import Architecture, load_space
from search_spaces.attention import ATTENTION
from tests.e2e.running import Service

SHORT: dict[str, Any] = {
    "objectives": ["loss", "expected_flops"],
    "strategy": {"name": "random"},
    "fidelity": {"max_steps": 6, "min_steps": 2, "reduction_factor": 3, "audit": 1.0},
    "budget": {"trials": 8},
    "training": {"batch_size": 4, "evaluation_batches": 1},
    "verification": {"seeds": 0},
    "reuse": False,
}

LISTOPS: dict[str, Any] = {
    "name": "listops",
    "min_length": 8,
    "max_length": 64,
    "train_examples": 100,
    "evaluation_examples": 20,
}
TEXT: dict[str, Any] = {"name": "text_lm", "dataset": "python-source", "sequence_length": 64}

# the seeds are such that the few random trials have every mechanism among them
SURVEYS: dict[str, dict[str, Any]] = {
    "survey-lm on text": {"space": "survey-lm", "task": TEXT, "seed": 80},
    "survey-lm on lists": {"space": "survey-lm", "task": LISTOPS, "seed": 80},
    "survey-encoder on lists": {"space": "survey-encoder", "task": LISTOPS, "seed": 112},
}


def mechanisms(architectures: Iterable[Architecture]) -> set[tuple[str, str]]:
    return {
        mechanism
        for arch in architectures
        for mechanism in (
            *(("attention", layer.attention.type) for layer in arch.layers),
            *(("feedforward", layer.feedforward.type) for layer in arch.layers),
            ("halting", arch.halting.type),
            ("residual", arch.residual.type),
        )
    }


@pytest.mark.parametrize("survey", SURVEYS)
def test_every_mechanism_trains_in_a_search_without_a_failure(
    service: Service, survey: str
) -> None:
    chosen = SURVEYS[survey]
    client = service.client
    job = service.wait(client.submit({**SHORT, **chosen}).id)
    trials = list(client.trials(job.id))
    failed = {t.error: t.architecture for t in trials if t.state is TrialState.FAILED}
    assert not failed
    assert job.state is JobState.SUCCEEDED, job.error
    assert {t.state for t in trials} == {TrialState.COMPLETED}
    causal = load_space(chosen["space"]).causal
    every = {
        (kind, name)
        for kind in ("attention", "feedforward", "halting", "residual")
        for name in list_mechanisms(kind=kind)
        if kind != "attention" or not causal or ATTENTION[name].causal
    }
    assert mechanisms(Architecture.model_validate(t.architecture) for t in trials) == every
    for trial in trials:
        low, high = trial.metrics["flops_low"], trial.metrics["flops"]
        assert 0.99 * low <= trial.metrics["expected_flops"] <= 1.01 * high
    front = client.pareto(job.id)
    for trial in (*front.items, *front.homogeneous):
        assert ("effective_context" in trial.metrics) == (chosen["task"] is TEXT)
        assert trial.metrics.get("effective_context", 1) >= 1
