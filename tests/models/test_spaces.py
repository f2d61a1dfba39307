"""Whatever a preset proposes can be built and trained."""

from __future__ import annotations

import random

import pytest
import torch

from nas.models import build_model
from nas.training.objectives import training_loss
from search_spaces import list_spaces, load_space

SAMPLES = {"survey-lm": 260, "survey-encoder": 260}
"""Of the spaces with every mechanism many; of the others a few."""


@pytest.mark.parametrize(("name", "version"), list_spaces())
def test_random_architectures_train(name: str, version: int) -> None:
    space = load_space(f"{name}@{version}")
    rng = random.Random(0)
    tokens = torch.randint(40, (2, 48))
    mask = torch.arange(48) < torch.tensor([[48], [30]])
    for _ in range(SAMPLES.get(name, 30)):
        arch = space.sample(rng)
        net = build_model(
            arch, vocab_size=40, num_outputs=40, max_length=64, causal=space.causal, head="token"
        )
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        before = [p.clone() for p in net.parameters()]
        out = net(tokens, mask=mask)
        targets = tokens.masked_fill(~mask, -100)
        loss = training_loss(out, targets)
        loss.backward()
        optimizer.step()
        assert loss.isfinite(), arch.canonical_json()
        for (label, after), old in zip(net.named_parameters(), before, strict=True):
            assert after.isfinite().all(), (label, arch.canonical_json())
            assert not torch.equal(after, old), (label, arch.canonical_json())
