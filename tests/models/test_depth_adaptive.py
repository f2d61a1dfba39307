"""Depth-adaptive halting: its distribution, the oracle, the loss, and where positions leave."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nas.models.halting.depth_adaptive import Taught
from nas.training.objectives import mean_loss, training_loss

from .exiting import C, N, model, tokens


def taught(chi: list[float], penalty: float = 0.0) -> Taught:
    """One position with given halting probabilities of all exits but the last."""
    halting = tuple(torch.logit(torch.tensor([[p]], dtype=torch.float64)) for p in chi)
    answers = tuple(torch.zeros(1, 1, C) for _ in range(len(chi) + 1))
    return Taught(answers, halting, penalty)


def test_distribution_over_exits() -> None:
    q = taught([0.25, 0.5]).log_q().exp()[0, 0]
    torch.testing.assert_close(q, torch.tensor([0.25, 0.75 * 0.5, 0.75 * 0.5]))
    assert taught([0.9, 0.2, 0.7]).log_q().exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("penalty", "best"), [(0.0, 2), (0.15, 1), (0.5, 0)])
def test_oracle_weighs_losses_against_layers(penalty: float, best: int) -> None:
    losses = torch.tensor([[1.0, 0.6, 0.5]])
    assert taught([0.5, 0.5], penalty).oracle(losses).tolist() == [best]


def test_of_equal_exits_the_first_is_best() -> None:
    assert taught([0.5, 0.5]).oracle(torch.ones(1, 3)).item() == 0


def test_loss_by_hand() -> None:
    exits = taught([0.25, 0.5], penalty=0.01)
    values = iter([2.0, 1.0, 1.5])
    loss = exits.loss(lambda logits: (torch.tensor([[next(values)]]), torch.tensor([[True]])))
    assert loss.item() == pytest.approx(1.5 - math.log(0.75 * 0.5))


def test_targets_that_do_not_count() -> None:
    net = model("depth_adaptive").train()
    targets = torch.randint(C, (2, N))
    targets[1] = -100
    out = net(tokens())
    alone = net(tokens()[:1])
    torch.testing.assert_close(training_loss(out, targets), training_loss(alone, targets[:1]))


@pytest.mark.parametrize("head", ["token", "pooled"])
def test_the_loss_is_of_exits_and_oracle(head: str) -> None:
    net = model("depth_adaptive", head=head).train()
    targets = torch.randint(C, (2, N) if head == "token" else (2,))
    out = net(tokens())
    exits = out.exits
    assert isinstance(exits, Taught)
    mean = torch.stack([mean_loss(each, targets) for each in exits.logits]).mean()
    assert training_loss(out, targets) > mean
    training_loss(out, targets).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_the_oracle_teaches_where_to_leave() -> None:
    def depth(penalty: float) -> float:
        net = model("depth_adaptive", halting={"type": "depth_adaptive", "penalty": penalty})
        targets = torch.randint(C, (2, N), generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(net.halting.unit.parameters(), lr=0.1)
        net.train()
        for _ in range(40):
            optimizer.zero_grad()
            training_loss(net(tokens()), targets).backward()
            optimizer.step()
        return float(net.eval()(tokens()).metrics["expected_depth"])

    assert depth(10.0) == 1
    assert depth(0.0) > 1.2


def test_chi_of_one_half_leaves() -> None:
    net = model("depth_adaptive")
    assert net.halting.lets_go(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [False, True, True]
    logits: Tensor = net(tokens()).logits
    assert logits.shape == (2, N, C)
