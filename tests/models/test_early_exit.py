"""Early exit: who leaves where, frozen states, decoding, the loss of all exits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.models import ModelOutput, Transformer
from nas.models.halting.exits import Exiting
from nas.training import objectives
from nas.training.objectives import mean_loss, training_loss
from search_spaces.architecture import InvalidArchitecture

from .exiting import LAYERS, C, N, V, architecture, model, tokens

KINDS = ["early_exit", "depth_adaptive"]
"""What all exits have in common holds for both; what is learned is tested apart."""


def all_exits(net: Transformer, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """The answers of all exits when nobody leaves."""
    net.train()
    exits = net(x, mask).exits
    net.eval()
    assert exits is not None
    return list(exits.logits)


def count_runs(monkeypatch: pytest.MonkeyPatch, net: Transformer) -> list[int]:
    runs: list[int] = []
    for i, layer in enumerate(net.layers):
        layer.register_forward_hook(lambda *_, i=i: runs.append(i))
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_positions_leave_at_different_exits(kind: str) -> None:
    net = model(kind, repeats=2)
    depth = net(tokens(batch=4)).metrics["expected_depth"].item()
    assert 1 < depth < 6
    exits = all_exits(net, tokens(batch=4))
    assert len(exits) == 6
    taken = net(tokens(batch=4)).logits
    # whoever left at the first exit answers as it does; nobody else does
    first = (taken == exits[0]).all(dim=-1)
    assert 0 < first.sum() < first.numel()


def test_the_first_sure_exit_is_taken() -> None:
    net = model()
    x = tokens()
    sure = [each.softmax(dim=-1).amax(dim=-1) >= 0.27 for each in all_exits(net, x)]
    taken = net(x).logits
    exits = all_exits(net, x)
    assert torch.equal(taken[sure[0]], exits[0][sure[0]])
    # the first position sees none but itself: it is computed as in training until it leaves
    for row in range(2):
        where = next((i for i in range(2) if sure[i][row, 0]), 2)
        torch.testing.assert_close(taken[row, 0], exits[where][row, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["token", "pooled"])
def test_all_leave_at_once_or_never(monkeypatch: pytest.MonkeyPatch, kind: str, head: str) -> None:
    net = model(kind, head=head)
    x = tokens()
    exits = all_exits(net, x)
    runs = count_runs(monkeypatch, net)
    monkeypatch.setattr(type(net.halting), "lets_go", lambda _, e: torch.ones_like(e).bool())
    out = net(x)
    assert runs == [0]
    assert torch.equal(out.logits, exits[0])
    assert out.metrics["expected_depth"].item() == 1
    assert out.exits is None
    runs.clear()
    monkeypatch.setattr(type(net.halting), "lets_go", lambda _, e: torch.zeros_like(e).bool())
    out = net(x)
    assert runs == [0, 1, 2]
    assert torch.equal(out.logits, exits[-1])
    assert out.metrics["expected_depth"].item() == 3


def test_who_has_left_is_frozen_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()
    x = tokens(batch=1)
    seen: list[Tensor] = []
    for layer in net.layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    leavers = torch.zeros(1, N, dtype=torch.bool)
    leavers[0, 3] = True
    monkeypatch.setattr(type(net.halting), "lets_go", lambda *_: leavers)
    net(x)
    assert torch.equal(seen[1][0, 3], seen[2][0, 3])
    assert not torch.equal(seen[1][0, 4], seen[2][0, 4])


@pytest.mark.parametrize("kind", KINDS)
def test_no_look_ahead(kind: str) -> None:
    net = model(kind)
    x = tokens()
    before = net(x).logits
    for t in (1, 17, N - 1):
        changed = x.clone()
        changed[:, t:] = tokens(seed=9)[:, t:]
        assert torch.equal(net(changed).logits[:, :t], before[:, :t])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("feedforward", [None, "convolution"])
@pytest.mark.parametrize("training", [False, True])
def test_steps_equal_forward(kind: str, feedforward: str | None, training: bool) -> None:
    layers = LAYERS
    if feedforward:
        layers = [{**layer, "feedforward": {"type": feedforward}} for layer in LAYERS]
    net = model(kind, layers=layers, repeats=2).train(training)
    x = tokens()
    with torch.no_grad():
        whole = net(x).logits
        first = net(x[:, :20], state=net.init_state(2))
        logits, state = [first.logits], first.state
        for t in range(20, N):
            y, state = net.step(x[:, t], state)  # type: ignore[arg-type]
            logits.append(y.unsqueeze(1))
    torch.testing.assert_close(torch.cat(logits, dim=1), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["token", "pooled"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_and_batch_mates_do_not_matter(kind: str, head: str, causal: bool) -> None:
    net = model(kind, head=head, causal=causal)
    lengths = torch.tensor([N, 25, 9])
    mask = torch.arange(N) < lengths.unsqueeze(1)
    x = tokens(batch=3)
    out = net(x, mask)
    other = net(torch.where(mask, x, tokens(batch=3, seed=5)), mask)
    assert other.metrics == out.metrics
    alone = [net(x[i : i + 1, :n]) for i, n in enumerate(lengths)]
    for i, n in enumerate(lengths):
        got = out.logits[i] if head == "pooled" else out.logits[i, :n]
        torch.testing.assert_close(got, alone[i].logits[0], rtol=0, atol=1e-12)
    depths = torch.stack([a.metrics["expected_depth"] for a in alone])
    torch.testing.assert_close(
        out.metrics["expected_depth"], (depths * lengths).sum() / lengths.sum()
    )
    nothing = torch.zeros(3, N, dtype=torch.bool)
    nothing[0] = True
    assert net(x, nothing).logits.isfinite().all()


@pytest.mark.parametrize("head", ["token", "pooled"])
def test_the_loss_is_the_mean_of_all_exits(head: str) -> None:
    net = model(head=head).train()
    x = tokens()
    targets = torch.randint(C, (2, N) if head == "token" else (2,))
    targets[0] = -100
    out = net(x)
    assert out.exits is not None
    wanted = torch.stack([mean_loss(each, targets) for each in out.exits.logits]).mean()
    torch.testing.assert_close(training_loss(out, targets), wanted)
    wanted.backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert torch.equal(out.logits, out.exits.logits[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_exits_learn(kind: str) -> None:
    halting = {"type": kind} | ({"penalty": 0.1} if kind == "depth_adaptive" else {})
    net = model(kind, width=32, num_outputs=V, halting=halting).float()
    x = torch.arange(N).remainder(7).expand(4, N)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    net.train()
    for _ in range(60):
        optimizer.zero_grad()
        objectives.training_loss(net(x[:, :-1]), x[:, 1:]).backward()
        optimizer.step()
    net.eval()
    out: ModelOutput = net(x[:, :-1])
    assert mean_loss(out.logits, x[:, 1:]) < 0.2
    assert out.metrics["expected_depth"] < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_keep_their_loss(kind: str) -> None:
    layers = [{**layer, "feedforward": {"type": "mixture"}} for layer in LAYERS]
    out = model(kind, layers=layers).train()(tokens())
    assert out.aux["load_balance"].item() >= 3 * 0.01 * 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_exported_graph_is_the_same(kind: str) -> None:
    net = model(kind)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x).logits
            return logits

    with torch.no_grad():
        graph = torch.export.export(Logits(), (tokens(),)).module()
        torch.testing.assert_close(graph(tokens(seed=3)), net(tokens(seed=3)).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_needs_two_layers_and_pre_norm(kind: str) -> None:
    with pytest.raises((InvalidArchitecture, ValueError), match="two layers"):
        architecture(kind, layers=LAYERS[:1])
    assert isinstance(model(kind, layers=LAYERS[:1], repeats=2).halting, Exiting)
    with pytest.raises((InvalidArchitecture, ValueError), match="cannot be reversed"):
        architecture(kind, residual={"type": "reversible"})
