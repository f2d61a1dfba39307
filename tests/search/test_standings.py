from __future__ import annotations

import math

from nas.search.objectives import Objectives
from nas.search.standings import Standings

OBJECTIVES = Objectives.of(["loss", "size"], [{"metric": "accuracy", "min": 0.5}])


def standings(results: dict[int, tuple[float, float, float]]) -> Standings[int]:
    made: Standings[int] = Standings(OBJECTIVES)
    for key, (loss, size, accuracy) in results.items():
        made.record(key, {"loss": loss, "size": size, "accuracy": accuracy})
    return made


def test_feasible_come_first_then_the_least_violation() -> None:
    made = standings(
        {
            0: (0.0, 0.0, 0.1),  # best of all, were it feasible
            1: (2.0, 2.0, 0.6),
            2: (1.0, 1.0, 0.9),
            3: (9.0, 9.0, 0.4),
            4: (0.0, 9.0, 0.5),
            5: (8.0, 8.0, 0.1),
        }
    )
    assert dict(zip(made.keys, made.ranks.tolist(), strict=True)) == {
        2: 0, 4: 0, 1: 1, 3: 2, 0: 3, 5: 3
    }  # fmt: skip
    assert set(made.order(limit=2)) == {2, 4}
    assert made.order()[2:4] == [1, 3]
    assert set(made.order()[4:]) == {0, 5}


def test_a_missing_objective_ranks_after_what_is_known() -> None:
    made = standings({0: (math.nan, 0.0, 0.9), 1: (5.0, 5.0, 0.9)})
    assert made.order() == [1, 0]


def test_results_are_replaced_and_removed() -> None:
    made = standings({0: (1.0, 1.0, 0.9), 1: (2.0, 2.0, 0.9)})
    assert made.order() == [0, 1]
    made.record(0, {"loss": 3.0, "size": 3.0, "accuracy": 0.9})
    assert made.order() == [1, 0]
    made.remove(1)
    made.remove(7)
    assert made.order() == [0]
    assert (0 in made, 1 in made, len(made)) == (True, False, 1)


def test_the_order_of_recording_does_not_matter() -> None:
    results = {i: (float(i % 5), float((7 * i) % 11), 0.9 if i % 3 else 0.3) for i in range(30)}
    backwards = dict(reversed(results.items()))
    assert standings(results).order() == standings(backwards).order()


def test_dominators_are_those_that_are_surely_before() -> None:
    made = standings(
        {0: (1.0, 1.0, 0.9), 1: (1.0, 2.0, 0.9), 2: (0.5, 3.0, 0.9), 3: (0.0, 0.0, 0.1)}
    )
    assert [made.dominators(key) for key in range(4)] == [0, 1, 0, 3]


def test_nothing_has_no_order() -> None:
    assert standings({}).order() == []
