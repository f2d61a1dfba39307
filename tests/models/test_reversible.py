"""Reversible layers: gradients, memory, decoding, losses counted once, choices made again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.measure.memory import LiveBytes
from nas.models import Transformer, build_model
from nas.models.feedforward import mixture
from nas.models.replay import recording, remembered, replaying
from nas.models.residual.base import Context, ResidualLayer
from nas.models.residual.reversible import ReversibleLayer
from search_spaces.architecture import Architecture

V, N = 20, 40
LAYERS: list[dict[str, Any]] = [
    {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 2}},
    {"attention": {"type": "longformer", "window": 5}, "feedforward": {"type": "gated"}},
    {"attention": {"type": "linear"}, "feedforward": {"type": "mixture", "auxiliary": 0.5}},
]


def model(layers: list[dict[str, Any]] = LAYERS, *, dropout: float = 0.0, **k: Any) -> Transformer:
    fields = {"width": 16, "layers": layers, "residual": {"type": "reversible"}, **k}
    torch.manual_seed(0)
    return build_model(
        Architecture.model_validate(fields),
        vocab_size=V,
        num_outputs=V,
        max_length=N,
        causal=True,
        head="token",
        dropout=dropout,
    )


def tokens(batch: int = 2, length: int = N) -> Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(1))


def outcome(net: Transformer, mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The loss with auxiliary ones, and its gradients, from one random state."""
    torch.manual_seed(3)
    out = net(tokens(), mask)
    loss = out.logits.sin().sum() + sum(out.aux.values())
    return loss, list(torch.autograd.grad(loss, list(net.parameters())))


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let autograd do it."""
    monkeypatch.setattr(
        ReversibleLayer,
        "through",
        classmethod(ResidualLayer.through.__func__),  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("fields", [{}, {"repeats": 2}, {"norm": "rms_norm"}], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_autograd(
    monkeypatch: pytest.MonkeyPatch, dropout: float, fields: dict[str, Any], masked: bool
) -> None:
    net = model(dropout=dropout, **fields).double()
    mask = torch.ones(2, N, dtype=torch.bool)
    mask[0, 5:9] = False
    loss, found = outcome(net, mask if masked else None)
    plainly(monkeypatch)
    wanted_loss, wanted = outcome(net, mask if masked else None)
    assert loss.item() == wanted_loss.item()
    for gradient, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, plain, rtol=0, atol=1e-10)


def test_dropout_is_drawn_and_drops() -> None:
    net = model(dropout=0.5)
    assert not torch.equal(net(tokens()).logits, net(tokens()).logits)
    net.eval()
    assert torch.equal(net(tokens()).logits, net(tokens()).logits)


def test_random_numbers_go_on_as_if_nothing_was_drawn_twice() -> None:
    net = model(dropout=0.5)
    torch.manual_seed(0)
    loss = net(tokens()).logits.sum()
    expected = torch.get_rng_state()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), expected)


def test_gradients_in_a_functional_call(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model().double()
    other = {name: (1.1 * p).detach().requires_grad_() for name, p in net.named_parameters()}

    def gradients() -> tuple[Tensor, ...]:
        out = torch.func.functional_call(net, other, (tokens(),))
        return torch.autograd.grad(out.logits.sin().sum(), list(other.values()), allow_unused=True)

    found = gradients()
    plainly(monkeypatch)
    for gradient, wanted in zip(found, gradients(), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


def test_frozen_weights_get_no_gradient() -> None:
    net = model()
    for parameter in net.get_submodule("layers.0").parameters():
        parameter.requires_grad_(False)
    net(tokens()).logits.sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith("layers.0."), name


def test_shared_parameters_get_their_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = {"attention": {"type": "linformer", "rank": 4, "sharing": "model"}}
    layer = {**layer, "feedforward": {"type": "dense"}}
    arch = {"width": 16, "layers": [layer, layer], "position": "none"}
    net = build_model(
        Architecture.model_validate({**arch, "residual": {"type": "reversible"}}),
        vocab_size=V,
        num_outputs=3,
        max_length=N,
        causal=False,
        head="pooled",
    ).double()
    _, found = outcome(net)
    assert any(name.startswith("shared.") for name, _ in net.named_parameters())
    plainly(monkeypatch)
    for gradient, wanted in zip(found, outcome(net)[1], strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


def kept_and_peak(net: Transformer) -> tuple[int, int]:
    """Bytes alive after the forward pass, and the most until the end of the backward pass."""
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        loss = net(tokens(8, N)).logits.sum()
        kept = live.live
        loss.backward()
    return kept, live.peak


def test_memory_is_flat_in_depth() -> None:
    layer = {**LAYERS[0], "heads": 2}
    plain = [kept_and_peak(model([layer] * d, residual={"type": "pre_norm"})) for d in (2, 16)]
    assert plain[1][0] > 5 * plain[0][0]
    for make in (
        lambda n: model([layer] * n),
        lambda n: model([layer], repeats=n),
        lambda n: model([layer] * n, dropout=0.1),
    ):
        few, many = make(2), make(16)
        (kept, peak), (kept_deep, peak_deep) = kept_and_peak(few), kept_and_peak(many)
        # the states of the random numbers are all that there is more of
        assert kept_deep <= kept + 28 * 5056
        weights = 4 * sum(p.numel() for p in many.parameters())
        assert peak_deep <= peak + weights + 28 * 5056


def test_auxiliary_losses_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = {**LAYERS[0], "feedforward": {"type": "mixture", "auxiliary": 0.5}}
    net = model([mixture, LAYERS[0], mixture]).double()
    loss = net(tokens()).aux["load_balance"]
    wanted = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    with torch.no_grad():
        assert net(tokens()).aux["load_balance"].item() == loss.item()
    plainly(monkeypatch)
    plain = net(tokens()).aux["load_balance"]
    assert plain.item() == loss.item()
    assert plain.item() > 0.5
    for p, g in zip(net.parameters(), wanted, strict=True):
        (found,) = torch.autograd.grad(plain, [p], retain_graph=True, allow_unused=True)
        zero = torch.zeros_like(p)
        torch.testing.assert_close(
            zero if g is None else g, zero if found is None else found, rtol=0, atol=1e-10
        )


def test_choices_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model([LAYERS[2]] * 3)
    asked: list[int] = []
    feed = ReversibleLayer.feed

    def counted(self: ReversibleLayer, x: Tensor, mask: Tensor | None) -> Any:
        # what comes back is another number: the expert must be the same
        shifted = x + 0.5 * torch.randn_like(x) if asked else x
        return feed(self, shifted, mask)

    chosen: list[Tensor] = []

    def noted(compute: Any) -> Tensor:
        choice = remembered(compute)
        chosen.append(choice)
        return choice

    monkeypatch.setattr(mixture, "remembered", noted)
    monkeypatch.setattr(ReversibleLayer, "feed", counted)
    loss = net(tokens()).logits.sum()
    asked.append(1)
    loss.backward()
    assert len(chosen) == 6
    for first, again in zip(chosen[:3], reversed(chosen[3:]), strict=True):
        assert torch.equal(first, again)


def test_a_tape_is_read_in_order() -> None:
    tape: list[Tensor] = []
    with recording(tape):
        first = [remembered(lambda i=i: torch.tensor(i)) for i in (4, 5)]  # type: ignore[misc]
    remembered(lambda: torch.tensor(9))
    again = replaying(tape)
    for _ in range(2):  # more than once
        with again:
            assert [remembered(lambda: torch.tensor(0)) for _ in range(2)] == first
            with pytest.raises(RuntimeError, match="more choices"):
                remembered(lambda: torch.tensor(0))
    assert remembered(lambda: torch.tensor(7)) == 7


@pytest.mark.parametrize("layers", [LAYERS[:2], LAYERS], ids=len)
def test_steps_equal_forward(layers: list[dict[str, Any]]) -> None:
    net = model(layers, repeats=2).eval()
    x = tokens()
    whole = net(x).logits
    with torch.no_grad():
        torch.testing.assert_close(net(x).logits, whole, rtol=0, atol=1e-6)
        first = net(x[:, :30], state=net.init_state(2))
        logits, state = [first.logits], first.state
        for t in range(30, N):
            y, state = net.step(x[:, t], state)  # type: ignore[arg-type]
            logits.append(y.unsqueeze(1))
    torch.testing.assert_close(torch.cat(logits, dim=1), whole, rtol=0, atol=1e-5)


def test_rebuilt_inputs_are_near() -> None:
    net = model([LAYERS[0]] * 24)
    layers: list[Any] = list(net.cycle())
    x = torch.randn(2, N, 16)
    stream = ReversibleLayer.enter(x)
    with torch.no_grad():
        for layer in layers:
            stream = layer(stream, Context()).stream
        y1, y2 = stream
        for layer in reversed(layers):
            y2 = y2 - layer.feed(y1, None)[0]
            y1 = y1 - layer.mix(y2, Context())[0]
    torch.testing.assert_close(y1, x, rtol=0, atol=3e-5)
    torch.testing.assert_close(y2, x, rtol=0, atol=3e-5)


def test_half_precision_trains() -> None:
    net = model()
    exact = net(tokens()).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(tokens()).logits
    assert (logits.float() - exact).std() < 0.1 * exact.std()
    logits.float().sin().sum().backward()
    wanted = torch.autograd.grad(exact.sin().sum(), list(net.parameters()))
    for (name, p), plain in zip(net.named_parameters(), wanted, strict=True):
        assert p.grad is not None, name
        assert (p.grad - plain).norm() < 0.2 * plain.norm(), name
