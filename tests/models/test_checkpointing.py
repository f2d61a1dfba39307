"""Checkpointed layers: the same numbers, and of each layer only its input is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.measure.memory import LiveBytes
from nas.models import Transformer, build_model
from nas.models.feedforward import mixture
from nas.models.replay import remembered
from nas.models.residual.base import Context
from nas.training.objectives import training_loss
from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidInput

V, N, D = 20, 40, 16
LAYERS: list[dict[str, Any]] = [
    {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 2}},
    {"attention": {"type": "longformer", "window": 5}, "feedforward": {"type": "gated"}},
    {"attention": {"type": "linear"}, "feedforward": {"type": "mixture", "auxiliary": 0.5}},
]
ASSEMBLIES: list[dict[str, Any]] = [
    {},
    {"repeats": 2},
    {"repeats": 3, "halting": {"type": "act"}},
    {"halting": {"type": "early_exit"}},
    {"halting": {"type": "depth_adaptive"}},
]


def model(*, checkpointing: bool, dropout: float = 0.0, **fields: Any) -> Transformer:
    given = {"width": D, "layers": LAYERS, "checkpointing": checkpointing, **fields}
    torch.manual_seed(0)
    return build_model(
        Architecture.model_validate(given),
        vocab_size=V,
        num_outputs=V,
        max_length=N,
        causal=True,
        head="token",
        dropout=dropout,
    )


def tokens(batch: int = 2) -> Tensor:
    return torch.randint(V, (batch, N), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("fields", ASSEMBLIES, ids=str)
def test_gradients_are_the_same(fields: dict[str, Any], dropout: float) -> None:
    nets = [model(checkpointing=c, dropout=dropout, **fields).double() for c in (False, True)]
    losses = []
    for net in nets:
        torch.manual_seed(2)
        losses.append(training_loss(net(tokens()), tokens()))
        losses[-1].backward()
    assert torch.equal(*losses)
    for plain, checkpointed in zip(*(net.parameters() for net in nets), strict=True):
        assert plain.grad is not None
        assert checkpointed.grad is not None
        torch.testing.assert_close(checkpointed.grad, plain.grad, rtol=0, atol=1e-12)


def kept(net: Transformer) -> int:
    x = tokens(8)
    net(x)  # tables are made by the first pass
    with LiveBytes() as live:
        logits = net(x).logits
        assert logits.requires_grad
        return live.live


def test_only_the_inputs_of_layers_are_kept() -> None:
    shallow, deep = (
        kept(model(checkpointing=True, layers=LAYERS[:1] * depth)) for depth in (2, 10)
    )
    stream = 4 * 8 * N * D
    assert deep - shallow == 8 * stream
    assert kept(model(checkpointing=False, layers=LAYERS[:1] * 10)) > 3 * deep


def test_choices_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model(checkpointing=True, layers=LAYERS[2:])
    chosen: list[Tensor] = []

    def noted(compute: Any) -> Tensor:
        # another choice each time that it is really made
        choice = remembered(lambda: (compute() + len(chosen)) % 4)
        chosen.append(choice)
        return choice

    monkeypatch.setattr(mixture, "remembered", noted)
    loss = net(tokens()).logits.sum()
    for _ in range(2):  # the graph may be used twice
        loss.backward(retain_graph=True)
    first, *again = chosen
    assert len(again) == 2
    assert all(torch.equal(first, other) for other in again)


def test_evaluation_and_decoding_are_as_ever() -> None:
    plain, checkpointed = (model(checkpointing=c).eval() for c in (False, True))
    x = tokens()
    assert torch.equal(plain(x).logits, checkpointed(x).logits)
    with torch.no_grad():
        assert torch.equal(plain(x).logits, checkpointed(x).logits)
    out = checkpointed(x, state=checkpointed.init_state(2))
    torch.testing.assert_close(out.logits, plain(x).logits, rtol=0, atol=1e-5)


def test_not_with_reversible_layers() -> None:
    with pytest.raises(ValueError, match="checkpointing could save"):
        model(checkpointing=True, residual={"type": "reversible"})


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_a_probability_below_one(dropout: float) -> None:
    with pytest.raises(InvalidInput, match="no dropout of"):
        model(checkpointing=False, dropout=dropout)


def test_dropout_drops_what_blocks_add() -> None:
    net = model(checkpointing=False, dropout=0.5, layers=LAYERS[:1])
    (layer,) = net.cycle()
    added, _ = layer.mix(torch.randn(4, N, D), Context())
    assert (added == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    net.eval()
    assert not (layer.mix(torch.randn(4, N, D), Context())[0] == 0).any()
