from __future__ import annotations

import pytest

from nas.training.schedule import Schedule


def test_the_rate_rises_linearly_then_falls_to_a_tenth() -> None:
    schedule = Schedule(max_steps=100, warmup=0.1)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:11] == pytest.approx([0.1 * (i + 1) for i in range(10)] + [1.0])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.55, abs=0.01)
    assert factors[99] == pytest.approx(0.1)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert Schedule(max_steps=50, warmup=0).factor(0) == 1


def test_past_the_end_it_stays_at_a_tenth() -> None:
    assert Schedule(max_steps=50, warmup=0.1).factor(500) == pytest.approx(0.1)


@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_the_shortest_trainings_have_a_rate(max_steps: int) -> None:
    for warmup in (0, 0.1, 0.9):
        schedule = Schedule(max_steps, warmup)
        assert all(0 < schedule.factor(step) <= 1 for step in range(max_steps))
