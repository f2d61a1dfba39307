from __future__ import annotations

import random

import optuna
import pytest

from nas.search import Strategy, create_strategy
from nas.search.strategies.tpe import Tpe
from search_spaces import load_space

SPACE = load_space("efficient-lm")
ENCODERS = load_space("efficient-encoder")


def warmed_up(losses: dict[str, float], objectives: list[str], **kwargs: object) -> Strategy:
    """A strategy that has seen sixty architectures, whose loss depends on their norm."""
    strategy = create_strategy("tpe", space=SPACE, objectives=objectives, **kwargs)  # type: ignore[arg-type]
    rng = random.Random(0)
    for _ in range(60):
        candidate = strategy.adopt(SPACE.sample(rng), "random")
        norm = SPACE.decisions(candidate.architecture)["norm"]
        accuracy = 0.9 if norm == "layer_norm" else 0.1
        metrics = {"loss": losses[str(norm)] + rng.random(), "accuracy": accuracy}
        strategy.tell(candidate, metrics)
    return strategy


def share_of_rms_norm(strategy: Strategy) -> float:
    asked = [strategy.ask().architecture for _ in range(24)]
    return sum(SPACE.decisions(a)["norm"] == "rms_norm" for a in asked) / len(asked)


def test_it_prefers_what_was_good() -> None:
    assert share_of_rms_norm(warmed_up({"layer_norm": 5.0, "rms_norm": 1.0}, ["loss"])) > 0.7
    assert share_of_rms_norm(warmed_up({"layer_norm": 1.0, "rms_norm": 5.0}, ["loss"])) < 0.3


def test_it_prefers_what_keeps_the_constraints_to_what_is_good() -> None:
    strategy = warmed_up(
        {"layer_norm": 5.0, "rms_norm": 1.0},
        ["loss", "expected_depth"],
        constraints=[{"metric": "accuracy", "min": 0.5}],
    )
    for candidate in strategy.candidates:
        accuracy = 0.9 if candidate.architecture.norm == "layer_norm" else 0.1
        metrics = {"loss": 5.0 * accuracy, "accuracy": accuracy, "expected_depth": 1.0}
        strategy.tell(candidate, metrics)
    assert share_of_rms_norm(strategy) < 0.3


def test_it_learns_from_the_highest_fidelity_with_enough_results() -> None:
    strategy = warmed_up({"layer_norm": 5.0, "rms_norm": 1.0}, ["loss"], startup_trials=4)
    for candidate in strategy.candidates:
        # early results say the contrary, of more trials
        loss = {"layer_norm": 1.0, "rms_norm": 5.0}[candidate.architecture.norm]
        strategy.tell(candidate, {"loss": loss}, fidelity=0.1)
    assert share_of_rms_norm(strategy) > 0.7


def test_before_enough_is_known_it_samples() -> None:
    strategy = create_strategy("tpe", space=SPACE, objectives=["loss"], startup_trials=5)
    for _ in range(5):
        candidate = strategy.ask()
        assert candidate.origin == "random"
        strategy.tell(candidate, {"loss": 1.0})
    assert strategy.ask().origin == "tpe"


def test_invalid_draws_are_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linformer takes no rotary positions: a draw of both keeps all else that it wants."""
    strategy = create_strategy("tpe", space=ENCODERS, objectives=["loss"], startup_trials=2)
    for _ in range(4):
        strategy.tell(strategy.ask(), {"loss": 1.0})
    names = {name: domain.values for name, domain in ENCODERS.domains().items()}
    wanted = {name: len(values) - 1 for name, values in names.items()}
    wanted["position"] = names["position"].index("rotary")
    for name in names:
        if name.endswith(".attention"):
            wanted[name] = names[name].index("linformer")
    monkeypatch.setattr(Tpe, "_draw", lambda self, study: wanted)
    candidate = strategy.ask()
    assert ENCODERS.contains(candidate.architecture)
    held = ENCODERS.decisions(candidate.architecture)
    kept = sum(held[n] == names[n][wanted[n]] for n in held)
    assert kept > 0.6 * len(held)


def test_optuna_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    strategy = create_strategy("tpe", space=SPACE, objectives=["loss"], startup_trials=2)
    for _ in range(5):
        strategy.tell(strategy.ask(), {"loss": 1.0})
    assert capfd.readouterr().err == ""


def test_what_all_trials_have_in_common_is_what_optuna_finds() -> None:
    strategy = create_strategy("tpe", space=SPACE, objectives=["loss"], startup_trials=2)
    for _ in range(4):
        strategy.tell(strategy.ask(), {"loss": 1.0})
    assert isinstance(strategy, Tpe)
    told = strategy._told()
    assert told is not None
    study = strategy._study_of(told[1])
    trial = study.get_trials()[-1]
    ours = strategy._sampler(0).infer_relative_search_space(study, trial)
    theirs = optuna.samplers.TPESampler(multivariate=True, constant_liar=True)
    found = theirs.infer_relative_search_space(study, trial)
    assert list(ours.items()) == list(found.items())
