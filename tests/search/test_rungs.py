from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from nas.search.pareto import front
from nas.search.rungs import Rungs, hyperband_starts, is_audited

STEPS = (30, 90, 270)
Metrics = dict[str, float]


def rungs(**kwargs: Any) -> Rungs[int]:
    kwargs = {"steps": STEPS, "reduction_factor": 3, "objectives": ["loss", "size"]} | kwargs
    return Rungs(**kwargs)


def finish(
    made: Rungs[int], trial: int, rung: int, loss: float, size: float, **more: float
) -> None:
    made.start(trial, rung)
    made.record(trial, rung, {"loss": loss, "size": size, **more})


def result(trial: int, rung: int) -> Metrics:
    """Losses fall with training, sizes stay; better and larger go together, with noise."""
    rng = random.Random(trial)
    size = rng.uniform(1, 10)
    noise = random.Random(f"{trial}:{rung}").gauss(0, 0.1)
    return {"loss": 5 - 0.3 * size + rng.random() - rung + noise, "size": size}


def drive(
    made: Rungs[int],
    trials: int,
    slots: int = 2,
    evaluate: Callable[[int, int], Metrics] = result,
    fails: Callable[[int, int], bool] = lambda trial, rung: False,
) -> list[tuple[int, int]]:
    """A job from its first ask to the end of its draining; the segments in order of their end."""
    running: list[tuple[int, int]] = []
    done: list[tuple[int, int]] = []
    order = random.Random(0)
    asked = 0
    while True:
        while len(running) < slots:
            segment = made.next_promotion() if asked < trials else made.drain()
            if segment is None and asked < trials:
                segment = (asked, 0)
                asked += 1
            if segment is None:
                break
            made.start(*segment)
            running.append(segment)
        if not running:
            return done
        if asked == trials:
            for trial in made.hopeless():
                made.stop(trial)
        trial, rung = running.pop(order.randrange(len(running)))
        if fails(trial, rung):
            made.fail(trial)
        else:
            made.record(trial, rung, evaluate(trial, rung))
            done.append((trial, rung))


def test_the_best_third_is_promoted_once_there_are_three() -> None:
    made = rungs()
    finish(made, 0, 0, loss=3.0, size=3.0)
    finish(made, 1, 0, loss=1.0, size=1.0)
    assert made.next_promotion() is None
    finish(made, 2, 0, loss=2.0, size=2.0)
    assert made.next_promotion() == (1, 1)
    assert made.next_promotion() == (1, 1), "it is only proposed"
    made.start(1, 1)
    assert made.next_promotion() is None


def test_higher_rungs_go_first() -> None:
    made = rungs()
    for trial in range(9):
        finish(made, trial, 0, loss=trial, size=trial)
    for trial in range(3):
        assert made.next_promotion() == (trial, 1)
        finish(made, trial, 1, loss=trial, size=trial)
    for trial in range(9, 12):
        finish(made, trial, 0, loss=-trial, size=-trial)
    assert made.next_promotion() == (0, 2)
    made.start(0, 2)
    assert made.next_promotion() == (11, 1)


def test_feasible_before_infeasible() -> None:
    made = rungs(constraints=[{"metric": "accuracy", "min": 0.5}])
    finish(made, 0, 0, loss=1.0, size=1.0, accuracy=0.4)
    finish(made, 1, 0, loss=2.0, size=2.0, accuracy=0.5)
    finish(made, 2, 0, loss=3.0, size=3.0, accuracy=0.1)
    assert made.next_promotion() == (1, 1)


def test_the_extremes_of_the_front_are_promoted_before_its_middle() -> None:
    made = rungs()
    for trial, loss in enumerate((3.0, 5.0, 4.0, 1.0, 2.0, 4.5)):
        finish(made, trial, 0, loss=loss, size=6 - loss)
    promoted = []
    while promotion := made.next_promotion():
        made.start(*promotion)
        promoted.append(promotion[0])
    assert promoted == [3, 1]


def test_the_same_number_of_a_front_is_promoted_however_its_net_shifts() -> None:
    made = rungs()
    promoted = []
    rng = random.Random(0)
    for trial in range(300):
        loss = rng.uniform(0.2, 0.8)
        # all on one front, its extremes there from the start
        loss = {0: 0.0, 1: 1.0}.get(trial, loss)
        finish(made, trial, 0, loss=loss, size=1 - loss)
        while promotion := made.next_promotion():
            finish(made, *promotion, loss=loss, size=1 - loss)
            promoted.append(promotion)
    assert sum(rung == 1 for _, rung in promoted) == 100


def test_failed_trials_make_room() -> None:
    made = rungs()
    for trial in range(4):
        finish(made, trial, 0, loss=trial, size=trial)
    made.start(0, 1)
    assert made.next_promotion() is None
    made.fail(0)
    assert made.next_promotion() == (1, 1)
    made.record(0, 1, {"loss": 0.0, "size": 0.0})  # late: it stays failed
    assert made.next_promotion() == (1, 1)


def test_stopped_trials_are_not_promoted_but_still_count() -> None:
    made = rungs()
    for trial in range(3):
        finish(made, trial, 0, loss=trial, size=trial)
    made.stop(0)
    assert made.next_promotion() is None
    assert made.drain() is None


def test_audited_trials_reach_the_top_however_bad() -> None:
    made = rungs(audit=0.2, seed=5)
    audited = {trial for trial in range(60) if made.is_audited(trial)}
    assert 5 <= len(audited) <= 20
    done = drive(made, 60, evaluate=lambda trial, rung: {"loss": trial, "size": trial})
    assert audited < {trial for trial, rung in done if rung == 2}


def test_the_audited_share_is_drawn_from_seed_and_key_alone() -> None:
    shares = [sum(rungs(audit=a).is_audited(t) for t in range(4000)) / 4000 for a in (0, 0.1, 1)]
    assert shares == pytest.approx([0, 0.1, 1], abs=0.015)
    one, same, other = (rungs(audit=0.5, seed=seed) for seed in (1, 1, 2))
    draws = [[made.is_audited(t) for t in range(64)] for made in (one, same, other)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == [is_audited(t, 0.5, 1) for t in range(64)]


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 7, 10, 27, 48])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_draining_fills_every_rung_and_leaves_nothing_undecided(trials: int, slots: int) -> None:
    made = rungs()
    done = drive(made, trials, slots)
    reached = [{trial for trial, rung in done if rung == r} for r in range(3)]
    assert len(done) == sum(map(len, reached)), "no segment is run twice"
    assert len(reached[0]) == trials
    for below, above in itertools.pairwise(reached):
        assert above <= below
        assert len(above) >= -(-len(below) // 3)
    assert made.drain() is None
    assert made.next_promotion() is None


def test_draining_waits_for_what_may_still_come() -> None:
    made = rungs()
    made.start(0, 0)
    made.start(1, 0)
    made.record(0, 0, {"loss": 2.0, "size": 2.0})
    assert made.drain() is None
    made.record(1, 0, {"loss": 1.0, "size": 1.0})
    assert made.drain() == (1, 1)


def test_when_the_promoted_fail_the_next_best_take_their_places() -> None:
    made = rungs()
    done = drive(made, 12, fails=lambda trial, rung: rung == 2 and trial % 2 == 0)
    top = [trial for trial, rung in done if rung == 2]
    assert top
    assert all(trial % 2 for trial in top)


def test_all_may_fail() -> None:
    done = drive(rungs(), 9, fails=lambda trial, rung: rung == 1)
    assert sorted(done) == [(trial, 0) for trial in range(9)]


@pytest.mark.parametrize("seed", range(8))
def test_none_of_the_hopeless_is_ever_promoted(seed: int) -> None:
    """While draining without failures, what was once given up is never proposed."""
    rng = random.Random(seed)
    made = rungs(audit=0.1, seed=seed)
    running: list[tuple[int, int]] = []
    for trial in range(40):
        finish(made, trial, 0, **result(trial, 0))
    for trial in range(40, 44):
        made.start(trial, 0)
        running.append((trial, 0))
    given_up: set[int] = set()
    completed: set[int] = set()
    while True:
        while len(running) < 4 and (segment := made.drain()):
            assert segment[0] not in given_up
            made.start(*segment)
            running.append(segment)
        given_up |= made.hopeless()
        if not running:
            break
        trial, rung = running.pop(rng.randrange(len(running)))
        made.record(trial, rung, result(trial, rung))
        completed |= {trial} if rung == made.top else set()
    assert given_up | completed == set(range(44))
    assert not given_up & completed


def test_the_front_at_full_fidelity_is_found_with_a_fraction_of_the_training() -> None:
    trials = 81
    final = {trial: result(trial, 2) for trial in range(trials)}
    points = [[final[trial]["loss"], final[trial]["size"]] for trial in range(trials)]
    everything = {int(i) for i in front(points)}
    done = drive(rungs(), trials)
    top = {trial for trial, rung in done if rung == 2}
    cost = sum(STEPS[rung] - (STEPS[rung - 1] if rung else 0) for _, rung in done)
    assert cost < 0.4 * trials * STEPS[-1]
    cheapest = min(everything, key=lambda trial: final[trial]["size"])
    assert cheapest in top
    assert min(final[t]["loss"] for t in top) == min(final[t]["loss"] for t in everything)


def test_state_is_rebuilt_from_rows_in_any_order_of_the_trials() -> None:
    made = rungs(audit=0.1)
    done = drive(made, 30)[:40]
    first, second = rungs(audit=0.1), rungs(audit=0.1)
    for trial, rung in done:
        first.record(trial, rung, result(trial, rung))
    for trial, rung in sorted(done):
        second.record(trial, rung, result(trial, rung))
    promotions = []
    for rebuilt in (first, second):
        promotions.append([])
        while promotion := rebuilt.next_promotion():
            rebuilt.start(*promotion)
            promotions[-1].append(promotion)
    assert promotions[0] == promotions[1] != []


def test_keys_may_be_names() -> None:
    made: Rungs[str] = Rungs(STEPS, 3, ["loss"])
    for name in ("a", "b", "c"):
        made.record(name, 0, {"loss": float(ord(name))})
    assert made.next_promotion() == ("a", 1)


def test_one_rung_promotes_nothing() -> None:
    made = rungs(steps=(10,))
    for trial in range(9):
        finish(made, trial, 0, loss=trial, size=trial)
    assert made.next_promotion() is None
    assert made.drain() is None
    assert made.hopeless() == set()


@pytest.mark.parametrize(
    "wrong", [{"steps": ()}, {"steps": (90, 30)}, {"steps": (3, 3)}, {"reduction_factor": 1}]
)
def test_ladders_that_cannot_be_climbed_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ascending|reduction"):
        rungs(**wrong)


def test_hyperband_gives_each_rung_its_share_of_the_first_trainings() -> None:
    assert hyperband_starts(3, 3) == pytest.approx((6 / 11, 3 / 11, 2 / 11))
    assert hyperband_starts(1, 3) == (1.0,)
    made = rungs(starts=hyperband_starts(3, 3), seed=1)
    first = [made.first(f"architecture {i}") for i in range(4000)]
    shares = [first.count(rung) / 4000 for rung in range(3)]
    assert shares == pytest.approx(hyperband_starts(3, 3), abs=0.03)
    again, other = (rungs(starts=hyperband_starts(3, 3), seed=seed) for seed in (1, 2))
    assert first == [again.first(f"architecture {i}") for i in range(4000)]
    assert first != [other.first(f"architecture {i}") for i in range(4000)]
    assert {rungs().first(f"architecture {i}") for i in range(100)} == {0}


def test_trials_that_begin_higher_compete_with_those_that_were_promoted() -> None:
    made = rungs()
    for trial, loss in enumerate((1.0, 2.0, 3.0)):
        finish(made, trial, 0, loss=loss, size=loss)
    promoted = made.next_promotion()
    assert promoted == (0, 1)
    finish(made, 0, 1, loss=1.0, size=1.0)
    for trial, loss in ((3, 0.5), (4, 4.0)):  # they begin with the second rung
        finish(made, trial, 1, loss=loss, size=loss)
    assert made.next_promotion() == (3, 2)


@pytest.mark.parametrize("trials", [1, 5, 12, 40])
def test_wherever_trials_begin_nothing_is_left_undecided(trials: int) -> None:
    made = rungs(starts=hyperband_starts(3, 3))
    done = []
    running = []
    for trial in range(trials):
        running.append((trial, made.first(str(trial))))
        made.start(*running[-1])
    while running:
        trial, rung = running.pop(0)
        made.record(trial, rung, result(trial, rung))
        done.append((trial, rung))
        for lost in made.hopeless():
            made.stop(lost)
        while segment := made.drain():
            made.start(*segment)
            running.append(segment)
    assert len(done) == len(set(done))
    assert {trial for trial, _ in done} == set(range(trials))
    assert any(rung == made.top for _, rung in done)
    assert made.drain() is None
