"""Adaptive computation time: weights, the ponder cost and its gradient, frozen states."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from nas.models.halting.act import Adaptive
from search_spaces.halting.act import AdaptiveComputationTime
from search_spaces.halting.base import HaltingSlot

REPEATS = 4


class Recorded(Adaptive):
    """Halts with given probabilities instead of those of its unit."""

    def __init__(self, probabilities: Sequence[Tensor], ponder_cost: float = 1.0) -> None:
        spec = AdaptiveComputationTime(ponder_cost=ponder_cost)
        super().__init__(spec, HaltingSlot(8, depth=1, repeats=len(probabilities)))
        self.probabilities = iter(probabilities)

    def halting_probability(self, x: Tensor) -> Tensor:
        return next(self.probabilities)


class Growing:
    """A stack whose cycle adds 1 to the states of active positions."""

    def __init__(self) -> None:
        self.runs = 0
        self.absorbed: Tensor | None = None

    def cycle(self, x: Tensor, active: Tensor | None) -> Tensor:
        self.runs += 1
        return x + 1 if active is None else torch.where(active.unsqueeze(-1), x + 1, x)

    def absorb_rest(self, x: Tensor) -> None:
        self.absorbed = x


def leaves(*values: Sequence[float]) -> list[Tensor]:
    """h of each cycle for one sequence."""
    return [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in values]


def zeros(N: int) -> Tensor:
    return torch.zeros(1, N, 8, dtype=torch.float64)


def test_ponder_cost_and_its_gradient() -> None:
    # positions halt in cycles 1, 3 and, at the end, 4
    h = leaves([1.0, 0.3, 0.1], [0.5, 0.4, 0.2], [0.5, 0.5, 0.1], [0.5, 0.5, 0.1])
    out = Recorded(h)(zeros(3), Growing(), None)
    assert out.layers is not None
    assert out.layers.tolist() == [[1, 3, 4]]
    # N + R with R = 1 - Σ h over n < N
    rho = [1 + 1.0, 3 + (1 - 0.7), 4 + (1 - 0.4)]
    assert out.aux["ponder"].item() == pytest.approx(sum(rho) / 3)
    out.aux["ponder"].mul(3).backward()
    gradients = [[0.0, -1.0, -1.0], [0.0, -1.0, -1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert [t.grad.tolist()[0] for t in h if t.grad is not None] == gradients


def test_weights_sum_to_one() -> None:
    h = leaves([1.0, 0.3, 0.1], [0.5, 0.4, 0.2], [0.5, 0.5, 0.1], [0.5, 0.5, 0.1])
    # states are 1, 2, 3, 4: their mean shows the weights
    out = Recorded(h)(zeros(3), Growing(), None)
    means = [1.0, 0.3 * 1 + 0.4 * 2 + 0.3 * 3, 0.1 * 1 + 0.2 * 2 + 0.1 * 3 + 0.6 * 4]
    torch.testing.assert_close(out.x[0, :, 0], torch.tensor(means, dtype=torch.float64))
    constant = Recorded(h)
    ones = torch.ones_like(zeros(3))
    same = constant(ones, Standing(), None)
    torch.testing.assert_close(same.x, ones, rtol=0, atol=1e-15)


class Standing(Growing):
    """A stack whose cycle changes nothing."""

    def cycle(self, x: Tensor, active: Tensor | None) -> Tensor:
        return x


def test_certain_halting_takes_one_step() -> None:
    cycle = Growing()
    out = Recorded(leaves(*[[1.0, 1.0]] * REPEATS))(zeros(2), cycle, None)
    assert cycle.runs == 1
    assert out.layers is not None
    assert out.layers.tolist() == [[1, 1]]
    assert torch.equal(out.x, torch.ones_like(out.x))


def test_the_loop_ends_with_the_last_valid_position() -> None:
    cycle = Growing()
    h = leaves([1.0, 0.6, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.0])
    mask = torch.tensor([[True, True, False]])
    out = Recorded(h)(zeros(3), cycle, mask)
    assert cycle.runs == 2
    assert out.aux["ponder"].item() == pytest.approx(((1 + 1.0) + (2 + 0.4)) / 2)


def test_halted_states_are_frozen_and_handed_on() -> None:
    cycle = Growing()
    Recorded(leaves([1.0, 0.2], [0.0, 0.2], [0.0, 0.9], [0.0, 0.0]))(zeros(2), cycle, None)
    assert cycle.runs == 3
    assert cycle.absorbed is not None
    assert cycle.absorbed[0, :, 0].tolist() == [1, 3]


def test_epsilon_allows_one_step() -> None:
    out = Recorded(leaves([0.991], [0.5]))(zeros(1), Growing(), None)
    assert out.layers is not None
    assert out.layers.item() == 1


def test_ponder_cost_scales_the_loss() -> None:
    out = Recorded(leaves([1.0], [1.0]), ponder_cost=0.25)(zeros(1), Growing(), None)
    assert out.aux["ponder"].item() == pytest.approx(0.25 * 2)
