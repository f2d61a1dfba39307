"""A batch brought to a size."""

from __future__ import annotations

import torch

from nas.tasks.base import IGNORED, Batch


def test_a_batch_of_the_size_stays_as_it_is() -> None:
    tokens, targets = torch.arange(6).view(2, 3), torch.arange(2)
    filled = Batch(tokens, targets).filled(2, 3)
    assert filled.tokens.equal(tokens)
    assert filled.targets.equal(targets)
    assert filled.mask is None


def test_rows_come_again_and_short_ones_are_padded() -> None:
    tokens, mask = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]) > 0
    filled = Batch(tokens, torch.tensor([7, 8]), mask).filled(3, 5)
    assert filled.tokens.tolist() == [[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [1, 2, 3, 0, 0]]
    assert filled.targets.tolist() == [7, 8, 7]
    assert filled.mask is not None
    assert filled.mask.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_padding_has_no_targets() -> None:
    tokens = torch.tensor([[1, 2]])
    filled = Batch(tokens, tokens + 1).filled(1, 3)
    assert filled.targets.tolist() == [[2, 3, IGNORED]]
    assert filled.mask is not None
    assert filled.mask.tolist() == [[True, True, False]]
