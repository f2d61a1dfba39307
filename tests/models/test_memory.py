"""Memory of earlier segments through whole models and their training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.catalogue.tasks import TextLM
from nas.models import Memory, Transformer, build_model
from nas.models.residual.base import ResidualLayer
from nas.models.residual.reversible import ReversibleLayer
from nas.schemas import TrainingRecipe
from nas.tasks import Task, build_task
from nas.training.checkpoint import load_checkpoint, save_checkpoint, trim_checkpoint
from nas.training.loop import Trainer
from search_spaces.architecture import Architecture
from search_spaces.errors import InvalidInput

V, N, M = 20, 16, 24
LAYERS: list[dict[str, Any]] = [
    {
        "attention": {"type": "transformer_xl", "memory": M},
        "feedforward": {"type": "dense", "ratio": 2},
    },
    {"attention": {"type": "linear"}, "feedforward": {"type": "dense", "ratio": 1}},
]
ASSEMBLIES: list[dict[str, Any]] = [
    {},
    {"repeats": 2},
    {"residual": {"type": "reversible"}},
    {"checkpointing": True},
    {"repeats": 3, "halting": {"type": "act"}},
    {"halting": {"type": "early_exit"}},
]


def architecture(**fields: Any) -> Architecture:
    return Architecture.model_validate(
        {"width": 16, "layers": LAYERS, "position": "none", **fields}
    )


def model(**fields: Any) -> Transformer:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": V, "num_outputs": V, "causal": True, "head": "token"}
    return build_model(architecture(**fields), max_length=N, **shape).double()


def tokens(length: int = N) -> Tensor:
    return torch.randint(V, (2, length), generator=torch.Generator().manual_seed(1))


def test_two_segments_are_one_pass_through_one_layer() -> None:
    net = model(layers=LAYERS[:1])
    x = tokens(2 * N)
    first = net(x[:, :N])
    second = net(x[:, N:], memory=first.memory)
    whole = net(x).logits
    torch.testing.assert_close(torch.cat((first.logits, second.logits), dim=1), whole)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fields", ASSEMBLIES, ids=str)
def test_memory_is_of_every_run_and_detached(fields: dict[str, Any], training: bool) -> None:
    net = model(**fields).train(training)
    assert net.has_memory
    runs = net.arch.depth * net.arch.repeats
    memory: Memory | None = None
    for kept in (N, M, M):
        out = net(tokens(), memory=memory)
        memory = out.memory
        assert memory is not None
        assert len(memory) == runs
        for i, part in enumerate(memory):
            if i % 2:
                assert part is None
            else:
                assert part is not None
                assert part.shape == (2, kept, 16)
                assert not part.requires_grad
    out.logits.sum().backward()
    assert all(p.grad is not None for n, p in net.named_parameters() if n.startswith("layers.0"))


@pytest.mark.parametrize("fields", ASSEMBLIES, ids=str)
def test_memory_changes_the_answers(fields: dict[str, Any]) -> None:
    net = model(**fields).eval()
    x = tokens()
    before = net(x).memory
    assert not torch.equal(net(x, memory=before).logits, net(x).logits)
    with torch.no_grad():
        torch.testing.assert_close(net(x, memory=before).logits, net(x, memory=before).logits)


def test_gradients_of_reversible_layers_after_a_memory() -> None:
    def gradients() -> list[Tensor]:
        net = model(residual={"type": "reversible"})
        out = net(tokens(), memory=net(tokens()).memory)
        return list(torch.autograd.grad(out.logits.sin().sum(), list(net.parameters())))

    found = gradients()
    with pytest.MonkeyPatch.context() as patch:
        plain: Any = ResidualLayer.through
        patch.setattr(ReversibleLayer, "through", classmethod(plain.__func__))
        wanted = gradients()
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-10)


def test_layers_that_are_not_run_remember_too() -> None:
    net = model(halting={"type": "early_exit", "threshold": 1e-6}, layers=LAYERS[:1] * 3).eval()
    out = net(tokens())
    assert out.metrics["expected_depth"].item() == 1
    assert out.memory is not None
    assert [m is not None and m.shape[1] for m in out.memory] == [N] * 3


def test_refusals() -> None:
    net = model()
    memory = net(tokens()).memory
    assert memory is not None
    mask = torch.ones(2, N, dtype=torch.bool)
    with pytest.raises(InvalidInput, match="neither mask nor state"):
        net(tokens(), mask, memory=memory)
    with pytest.raises(InvalidInput, match="a memory of 1 layers"):
        net(tokens(), memory=memory[:1])
    assert net(tokens(), mask).memory is None
    assert not model(layers=LAYERS[1:]).has_memory


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("text")
    path = folder / "text"
    path.write_bytes(b"".join(b"%d is followed by %d. " % (i, i + 1) for i in range(600)))
    config = TextLM(sequence_length=N, dataset="mine")
    return build_task(config, dataset=path, cache=folder)


def trainer(text: Task, **fields: Any) -> Trainer:
    recipe = TrainingRecipe(batch_size=3)
    return Trainer(
        architecture(**fields), text, recipe, max_steps=10, seed=0, device=torch.device("cpu")
    )


def test_training_reads_on_and_remembers(text: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(text)
    given: list[Any] = []
    net = training.model
    forward = net.forward

    def noted(x: Tensor, mask: Any = None, state: Any = None, memory: Any = None) -> Any:
        given.append((x, memory))
        return forward(x, mask, state, memory)

    monkeypatch.setattr(net, "forward", noted)
    training.run(3)
    (_, none), (_, first), (_, second) = given
    assert none is None
    assert first[0].shape == (3, N, 16)
    assert second[0].shape == (3, M, 16)
    given.clear()
    training.evaluate("validation", 3)
    assert [memory is None for _, memory in given] == [True] + [False] * (len(given) - 1)
    assert training.checkpoint().memory is not None


def test_a_restored_training_goes_on_bit_for_bit(text: Task, tmp_path: Path) -> None:
    whole = trainer(text)
    whole.run(6)
    part = trainer(text)
    part.run(3)
    part.evaluate("validation", 2)
    path = tmp_path / "checkpoint"
    save_checkpoint(path, part.checkpoint())
    resumed = trainer(text)
    resumed.restore(load_checkpoint(path))
    resumed.run(6)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    forgetful = trainer(text)
    forgetful.restore(dataclasses.replace(load_checkpoint(path), memory=None))
    forgetful.run(6)
    assert any(
        not torch.equal(forgetful.model.state_dict()[name], value)
        for name, value in whole.model.state_dict().items()
    )
    trim_checkpoint(path)
    assert load_checkpoint(path).memory is None


def test_models_without_memory_train_as_ever(text: Task) -> None:
    training = trainer(text, layers=LAYERS[1:])
    training.run(1)
    assert training.checkpoint().memory is None
