from __future__ import annotations

import math

import pytest
import torch

from nas.training import objectives


def test_loss_by_hand_in_nats() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    loss = objectives.mean_loss(logits, torch.tensor([[0, 2]]))
    assert float(loss) == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)


def test_a_pooled_head_is_measured_alike() -> None:
    logits = torch.randn(5, 7)
    targets = torch.randint(7, (5,))
    pooled = objectives.sums(logits, targets)
    token = objectives.sums(logits.unsqueeze(0), targets.unsqueeze(0))
    assert [float(a) for a in pooled] == pytest.approx([float(b) for b in token])
    assert float(pooled[0]) / 5 == pytest.approx(float(objectives.mean_loss(logits, targets)))


def test_ignored_targets_count_for_nothing() -> None:
    logits = torch.randn(2, 4, 6, requires_grad=True)
    targets = torch.randint(6, (2, 4))
    targets[:, 2:] = -100
    nats, hits, count = objectives.sums(logits, targets)
    short = objectives.sums(logits[:, :2], targets[:, :2])
    assert int(count) == 4
    assert (nats.item(), hits.item()) == pytest.approx((short[0].item(), short[1].item()))
    objectives.mean_loss(logits, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[:, 2:].any()
    assert logits.grad[:, :2].any()


def test_half_precision_logits_are_measured_in_single() -> None:
    logits = torch.randn(3, 9).bfloat16()
    assert objectives.mean_loss(logits, torch.tensor([0, 1, 2])).dtype == torch.float32
