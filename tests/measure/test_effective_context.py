"""The context that a model uses, for models that are made to use so much and no more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import Unsupported
from nas.measure.effective_context import effective_context
from nas.models import build_model
from nas.tasks.base import IGNORED, Batch
from search_spaces.architecture import Architecture

V = 10


class Recalls(nn.Module):
    """Predicts the token that stands ``reach`` - 1 before; with less context it cannot tell."""

    def __init__(self, reach: int, sureness: float = 5.0) -> None:
        super().__init__()
        self.reach = reach
        self.sureness = sureness
        self.lengths: list[int] = []

    def forward(self, tokens: Tensor) -> SimpleNamespace:
        self.lengths.append(tokens.shape[1])
        before = functional.pad(tokens, (self.reach - 1, 0), value=V)[:, : tokens.shape[1]]
        logits = self.sureness * functional.one_hot(before, V + 1)[..., :V].float()
        return SimpleNamespace(logits=logits)


def windows(reach: int, N: int = 32, count: int = 3, noise: float = 0.0) -> list[Batch]:
    """Batches whose targets are what stands ``reach`` - 1 before, but for a share of noise."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        text = torch.randint(V, (64, N + reach), generator=generator)
        tokens, targets = text[:, reach:], text[:, 1 : N + 1].clone()
        wrong = torch.rand(targets.shape, generator=generator) < noise
        targets[wrong] = torch.randint(V, targets.shape, generator=generator)[wrong]
        batches.append(Batch(tokens, targets))
    return batches


@pytest.mark.parametrize("reach", [1, 2, 3, 7, 8, 21, 32])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_context_is_what_the_model_uses(reach: int, noise: float) -> None:
    found = effective_context(Recalls(reach), windows(reach, noise=noise))
    assert found == reach


@pytest.mark.parametrize("last", [1, 5, 12])
def test_every_scored_target_has_the_same_context(last: int) -> None:
    model = Recalls(21)
    assert effective_context(model, windows(21), last=last) == 21
    assert max(model.lengths) == 32 - last + 1


def test_a_model_that_sees_further_than_helps() -> None:
    """A rise counts, not a change: here the context confuses."""
    assert effective_context(Recalls(9), windows(4)) == 1


def test_a_model_that_uses_nothing() -> None:
    assert effective_context(Recalls(3, sureness=0.0), windows(3)) == 1


def test_a_rise_within_the_tolerance_counts_as_none() -> None:
    faint = Recalls(20, sureness=0.02)  # lowers a loss of ln 10 by .018, which is .8 % of it
    batches = windows(20)
    assert effective_context(faint, batches) == 1
    assert effective_context(faint, batches, tolerance=0.001) == 20


@pytest.mark.parametrize(("count", "wanted"), [(10, 1), (160, 20)])
def test_a_rise_within_its_standard_error_counts_as_none(count: int, wanted: int) -> None:
    """The model is right about one target in five: a rise of .037, its error .067 or .016."""
    batch = Batch(*(torch.cat([getattr(b, n) for b in windows(20)]) for n in ("tokens", "targets")))
    tokens, targets = batch.tokens[:count], batch.targets[:count].clone()
    wrong = torch.arange(count) % 5 > 0
    targets[wrong] = (targets[wrong] + 1) % V
    model = Recalls(20, sureness=0.5)
    assert effective_context(model, [Batch(tokens, targets)], tolerance=0.0) == wanted


def test_targets_that_do_not_count() -> None:
    batches = windows(6)
    for batch in batches:
        batch.tokens[::2] = 0
        batch.targets[::2] = IGNORED
    assert effective_context(Recalls(6), batches) == 6


def test_a_window_of_one_token() -> None:
    assert effective_context(Recalls(1), windows(1, N=1)) == 1


def test_the_model_is_left_as_it_was() -> None:
    layer = {"attention": {"type": "longformer", "window": 2}, "feedforward": {"type": "dense"}}
    arch = Architecture.model_validate({"width": 16, "position": "none", "layers": [layer]})
    torch.manual_seed(0)
    net = build_model(arch, vocab_size=V, num_outputs=V, max_length=32, causal=True, head="token")
    net.train()
    batches = windows(2)
    with torch.no_grad():  # its own answers as targets: every token that it sees then matters
        batches = [Batch(b.tokens, (50 * net(b.tokens).logits).argmax(-1)) for b in batches]
        net.head.weight.mul_(50)
    assert effective_context(net, batches, tolerance=1e-6) == 3  # itself, and two before
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def test_no_answer_when_it_is_not_wanted_any_more() -> None:
    model = Recalls(8).train()
    asked = iter(range(100))
    batches = windows(8)
    assert effective_context(model, batches, should_stop=lambda: next(asked) >= 2) is None
    assert len(model.lengths) == 2
    assert model.training


def test_short_contexts_take_many_windows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = windows(4, count=2)
    monkeypatch.setattr("nas.measure.effective_context.TOKENS_AT_ONCE", 1)
    model = Recalls(4)
    assert effective_context(model, batches) == 4
    assert model.lengths.count(32) == 2  # the batches as they are
    assert model.lengths.count(4) == 1  # both at once


def test_refusals() -> None:
    (batch,) = windows(2, count=1)
    model = Recalls(2)
    mask = torch.ones_like(batch.tokens, dtype=torch.bool)
    for batches, message in (
        ([Batch(batch.tokens, batch.targets[:, 0])], "target for each position"),
        ([Batch(batch.tokens, batch.targets, mask)], "without padding"),
        ([batch, *windows(2, N=16)], "one length"),
        ([], "one length"),
        ([Batch(batch.tokens, torch.full_like(batch.targets, IGNORED))], "targets count"),
    ):
        with pytest.raises(Unsupported, match=message):
            effective_context(model, batches)
    with pytest.raises(Unsupported, match="between 1 and 32"):
        effective_context(model, [batch], last=33)
    model.causal = False  # type: ignore[assignment]
    with pytest.raises(Unsupported, match="causal"):
        effective_context(model, [batch])
