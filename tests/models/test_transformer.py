"""Whole models: mixed layers, halting, decoding, padding, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from nas.errors import Unsupported
from nas.models import Transformer, build_model
from search_spaces.architecture import Architecture, InvalidArchitecture
from search_spaces.errors import InvalidInput

V, N = 20, 90
CAUSAL = [{"type": "full"}, {"type": "longformer", "window": 5}, {"type": "linear"}]
CAUSAL.append({"type": "performer", "features": 16})
HALTING: list[dict[str, Any]] = [
    {},
    {"repeats": 2},
    {"repeats": 3, "halting": {"type": "act"}},
]
POSITIONS = ["none", "sinusoidal", "learned", "rotary"]


def architecture(attention: list[dict[str, Any]] = CAUSAL, **changes: Any) -> Architecture:
    blocks = ({"type": "dense", "ratio": 2}, {"type": "gated", "ratio": 1.5, "activation": "silu"})
    layers = [
        {"attention": a, "feedforward": blocks[i % 2], "heads": (2, 4)[i % 2]}
        for i, a in enumerate(attention)
    ]
    return Architecture.model_validate({"width": 16, "layers": layers, **changes})


def model(arch: Architecture, *, causal: bool = True, head: str = "token", **k: Any) -> Transformer:
    torch.manual_seed(0)
    shape = {"vocab_size": V, "num_outputs": V, "max_length": N, **k}
    built = build_model(arch, causal=causal, head=head, **shape)  # type: ignore[arg-type]
    if arch.halting.adaptive:
        # spread the halting steps: with fresh weights all positions halt together
        torch.nn.init.normal_(built.halting.unit.weight, std=1.0)
        torch.nn.init.constant_(built.halting.unit.bias, 0.0)
    return built


def tokens(batch: int = 2, length: int = N, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("halting", HALTING, ids=str)
def test_no_look_ahead(position: str, halting: dict[str, Any]) -> None:
    net = model(architecture(position=position, **halting)).double()
    x = tokens()
    before = net(x).logits
    for t in (1, 64, 80):
        changed = x.clone()
        changed[:, t:] = tokens(seed=9)[:, t:]
        assert torch.equal(net(changed).logits[:, :t], before[:, :t])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("halting", HALTING, ids=str)
def test_steps_equal_forward(position: str, halting: dict[str, Any]) -> None:
    net = model(architecture(position=position, norm="rms_norm", **halting))
    x = tokens()
    with torch.no_grad():
        whole = net(x)
        assert whole.state is None
        first = net(x[:, :70], state=net.init_state(2))
        logits, state = [first.logits], first.state
        for t in range(70, N):
            y, state = net.step(x[:, t], state)
            logits.append(y.unsqueeze(1))
    torch.testing.assert_close(torch.cat(logits, dim=1), whole.logits, rtol=0, atol=1e-5)
    assert state is not None
    assert state.position == N


def test_a_state_can_be_used_again() -> None:
    net = model(architecture(repeats=3, halting={"type": "act"}))
    state = net(tokens(), state=net.init_state(2)).state
    assert state is not None
    token = tokens()[:, 0]
    first, _ = net.step(token, state)
    net.step(token + 1, state)
    again, _ = net.step(token, state)
    assert torch.equal(first, again)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("halting", HALTING, ids=str)
@pytest.mark.parametrize("head", ["token", "pooled"])
def test_padding_does_not_matter(causal: bool, halting: dict[str, Any], head: str) -> None:
    attention = CAUSAL if causal else [*CAUSAL, {"type": "linformer", "rank": 8}]
    arch = architecture(attention, position="learned", **halting)
    net = model(arch, causal=causal, head=head).double()
    lengths = torch.tensor([N, 50])
    mask = torch.arange(N) < lengths.unsqueeze(1)
    x = tokens()
    out = net(x, mask=mask)
    other = net(torch.where(mask, x, tokens(seed=5)), mask=mask)
    alone = [net(x[i : i + 1, :n]) for i, n in enumerate(lengths)]
    for i, n in enumerate(lengths):
        rows = slice(None) if head == "pooled" else slice(0, int(n))
        wanted = alone[i].logits[0, rows] if head == "token" else alone[i].logits[0]
        got = out.logits[i, rows] if head == "token" else out.logits[i]
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    assert other.metrics == out.metrics
    assert other.aux.keys() == out.aux.keys()
    for name, loss in out.aux.items():
        torch.testing.assert_close(loss, other.aux[name], rtol=0, atol=1e-12)
        parts = torch.stack([a.aux[name] for a in alone]) * lengths / lengths.sum()
        torch.testing.assert_close(loss, parts.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("halting", HALTING, ids=str)
def test_batch_mates_do_not_matter(halting: dict[str, Any]) -> None:
    net = model(architecture(**halting)).double()
    x = tokens(batch=3)
    alone = torch.cat([net(x[i : i + 1]).logits for i in range(3)])
    torch.testing.assert_close(net(x).logits, alone, rtol=0, atol=1e-12)


def test_expected_depth() -> None:
    fixed = model(architecture(repeats=3))
    assert fixed(tokens()).metrics["expected_depth"].item() == 12
    adaptive = model(architecture(repeats=3, halting={"type": "act"}))
    between = adaptive(tokens()).metrics["expected_depth"].item()
    assert 4 < between < 12
    torch.nn.init.constant_(adaptive.halting.unit.bias, 50.0)
    assert adaptive(tokens()).metrics["expected_depth"].item() == 4
    torch.nn.init.constant_(adaptive.halting.unit.bias, -50.0)
    assert adaptive(tokens()).metrics["expected_depth"].item() == 12


def test_halting_learns_from_the_ponder_cost() -> None:
    arch = architecture(CAUSAL[:1], repeats=4, halting={"type": "act", "ponder_cost": 1.0})
    net = model(arch)
    torch.nn.init.constant_(net.halting.unit.bias, -2.0)
    before = net(tokens()).metrics["expected_depth"].item()
    optimizer = torch.optim.Adam(net.halting.parameters(), lr=0.3)
    for _ in range(20):
        optimizer.zero_grad()
        net(tokens()).aux["ponder"].backward()
        optimizer.step()
    assert net(tokens()).metrics["expected_depth"].item() < before


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("position", POSITIONS)
def test_first_loss_is_near_chance(norm: str, position: str) -> None:
    net = model(
        architecture(norm=norm, position=position, width=64), vocab_size=256, num_outputs=256
    )
    x = torch.randint(256, (4, N))
    loss = cross_entropy(net(x).logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(256), abs=0.2)


def test_a_model_learns() -> None:
    net = model(architecture(repeats=2, halting={"type": "act"}, width=32))
    x = torch.arange(N).remainder(7).expand(4, N)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(25):
        optimizer.zero_grad()
        out = net(x)
        loss = cross_entropy(out.logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        (loss + out.aux["ponder"]).backward()
        optimizer.step()
    assert loss.item() < 0.5


def test_seed_and_weights_decide(tmp_path: Path) -> None:
    arch = architecture()
    first, again = model(arch), model(arch)
    assert torch.equal(first(tokens()).logits, again(tokens()).logits)
    save_file(first.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = build_model(arch, vocab_size=V, num_outputs=V, max_length=N, causal=True, head="token")
    assert not torch.equal(first(tokens()).logits, other(tokens()).logits)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(first(tokens()).logits, other(tokens()).logits)


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("halting", HALTING[:2], ids=str)
def test_half_precision_trains(norm: str, halting: dict[str, Any]) -> None:
    net = model(architecture(norm=norm, **halting))
    exact = net(tokens()).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(tokens())
        loss = cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())
    loss.backward()
    assert (out.logits.float() - exact).std() < 0.1 * exact.std()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("halting", HALTING, ids=str)
def test_exported_graph_is_the_same(halting: dict[str, Any]) -> None:
    net = model(architecture(**halting)).eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.net(x).logits
            return logits

    with torch.no_grad():
        graph = torch.export.export(Logits(), (tokens(),)).module()
        torch.testing.assert_close(graph(tokens(seed=3)), net(tokens(seed=3)).logits)


def test_pooled_head() -> None:
    net = model(architecture(), head="pooled", num_outputs=3)
    assert net(tokens()).logits.shape == (2, 3)
    with pytest.raises(Unsupported, match="pooled head"):
        net.init_state(2)


def test_refusals() -> None:
    encoder = architecture([{"type": "linformer"}], position="none")
    with pytest.raises(InvalidArchitecture, match="linformer is for encoders"):
        model(encoder)
    net = model(encoder, causal=False)
    with pytest.raises(Unsupported, match="an encoder has no state"):
        net.init_state(1)
    decoder = model(architecture(position="learned"))
    with pytest.raises(InvalidInput, match="tokens of shape"):
        decoder(tokens()[0])
    with pytest.raises(InvalidInput, match="tokens of shape"):
        decoder(tokens(length=0))
    with pytest.raises(InvalidInput, match="cannot be masked"):
        decoder(tokens(), mask=torch.ones(2, N, dtype=torch.bool), state=decoder.init_state(2))
    with pytest.raises(InvalidInput, match=f"{N + 1} tokens"):
        decoder(tokens(length=N + 1))
