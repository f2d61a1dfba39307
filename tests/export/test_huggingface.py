from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.catalogue.tasks import ListOps, Mqar, TaskConfig
from nas.models import Transformer
from nas.training.objectives import training_loss
from search_spaces.architecture import Architecture
from search_spaces.attention import ATTENTION
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.halting import HALTING
from search_spaces.residual import RESIDUAL

from .folders import CLASSES, FULL, LM, N, abroad, architecture, exported, layer

LENGTHS = (40, 23, 31, 40)
SMALL: Mapping[str, dict[str, int]] = {
    "bigbird": {"block": 4, "globals": 1, "random": 2},
    "longformer": {"window": 8},
    "reformer": {"chunk": 8},
    "strided": {"stride": 8},
    "fixed": {"block": 8, "summary": 2},
    "sinkhorn": {"block": 8},
    "nystromformer": {"landmarks": 8, "kernel": 9},
}
"""Settings with which the inputs are long."""


def of_mechanism(name: str) -> Architecture:
    positions = ("alibi", "rotary", "learned")
    position = next(p for p in positions if p in ATTENTION[name].positions)
    spec = {"type": name, **SMALL.get(name, {})}
    return architecture(layer(spec), layer(spec, "gated"), position=position)


CASES: Mapping[str, tuple[Architecture, TaskConfig]] = {
    **{
        name: (of_mechanism(name), LM if spec.causal else CLASSES)
        for name, spec in ATTENTION.items()
    },
    "longformer_classifier": (of_mechanism("longformer"), CLASSES),
    "shared_linformers": (
        architecture(
            *[layer({"type": "linformer", "sharing": "model"})] * 2, position="sinusoidal"
        ),
        CLASSES,
    ),
    "relative": (architecture(layer("transformer_xl"), FULL, position="relative"), LM),
    "mixture": (architecture(layer("full", "mixture")), LM),
    "convolution": (architecture(layer("linear", "convolution")), LM),
    "reversible": (architecture(FULL, FULL, residual={"type": "reversible"}), LM),
    "act": (architecture(FULL, repeats=3, halting={"type": "act"}), LM),
    "early_exit": (
        architecture(FULL, FULL, halting={"type": "early_exit", "threshold": 0.05}),
        LM,
    ),
    "depth_adaptive": (architecture(FULL, FULL, halting={"type": "depth_adaptive"}), CLASSES),
}


def inputs(vocabulary: int) -> dict[str, Tensor]:
    """The same rows with padding on their left and on their right."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(1, vocabulary, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    given = {"right_tokens": tokens, "right_mask": mask}
    order = mask.long().argsort(dim=1, stable=True)
    given |= {"left_tokens": tokens.gather(1, order), "left_mask": mask.gather(1, order)}
    return {name: tensor.long().contiguous() for name, tensor in given.items()}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Transformer]]:
    """All cases exported, loaded abroad and asked; by name, where that is and our models."""
    root = tmp_path_factory.mktemp("answers")
    models = {}
    for name, (arch, task) in CASES.items():
        models[name] = exported(root / name, arch, task)
        (root / name / "given").mkdir()
        save_file(inputs(task.shape().vocab_size), root / name / "given" / "inputs.safetensors")
    assert abroad("answers", *(root / name for name in CASES)) == {"modules": []}
    return root, models


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def decoded(model: Transformer, prompt: Tensor, steps: int) -> list[int]:
    """Greedily, one ``step`` after the other."""
    state = model.init_state(1)
    for token in prompt:
        logits, state = model.step(token.view(1), state)
    found: list[int] = []
    for _ in range(steps):
        found.append(int(logits.argmax()))
        logits, state = model.step(torch.tensor(found[-1:]), state)
    return found


def test_the_cases_have_every_mechanism() -> None:
    specs = [
        spec.type
        for arch, _ in CASES.values()
        for spec in (
            arch.residual,
            arch.halting,
            *(b for x in arch.layers for b in (x.attention, x.feedforward)),
        )
    ]
    assert {*ATTENTION, *FEEDFORWARD, *HALTING, *RESIDUAL} == set(specs)


@pytest.mark.parametrize("name", CASES)
def test_a_model_answers_abroad_as_here(
    answers: tuple[Path, dict[str, Transformer]], name: str
) -> None:
    root, models = answers
    given = load_file(root / name / "given" / "inputs.safetensors")
    found = load_file(root / name / "given" / "outputs.safetensors")
    tokens, mask, model = given["right_tokens"], given["right_mask"].bool(), models[name]
    with torch.no_grad():
        if CASES[name][1] is CLASSES:
            expected = model(tokens, mask).logits
            close(found["right"], expected)
            close(found["left"], expected)
            return
        for i, length in enumerate(LENGTHS):
            expected = model(tokens[i : i + 1, :length]).logits[0]
            close(found["right"][i, :length], expected)
            close(found["left"][i, -length:], expected)
            assert found["generated"][i, -8:].tolist() == decoded(model, tokens[i, :length], 8)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("lm") / "winner"
    arch = architecture(
        layer("longformer", "mixture"), layer("linear"), halting={"type": "early_exit"}
    )
    return exported(folder, arch, LM), abroad("language_model", folder)


def test_every_byte_is_its_own_token(language_model: tuple[Transformer, dict[str, Any]]) -> None:
    _, found = language_model
    assert found["ids"] == found["bytes"]
    assert found["text"]
    assert found["padding"] == [[256] * 7 + list(b"def "), [0] * 7 + [1] * 4]


def test_prompts_of_a_batch_do_not_change_each_other(
    language_model: tuple[Transformer, dict[str, Any]],
) -> None:
    model, found = language_model
    expected = [
        decoded(model, torch.tensor(list(prompt)), 5) for prompt in (b"def ", b"import os, ")
    ]
    assert found["batch"] == found["alone"] == found["without cache"] == expected


def test_a_seed_decides_what_is_sampled(
    language_model: tuple[Transformer, dict[str, Any]],
) -> None:
    assert language_model[1]["sampled"] is True


def test_a_row_that_has_ended_is_filled_with_padding(
    language_model: tuple[Transformer, dict[str, Any]],
) -> None:
    _, found = language_model
    first = found["stopped"][0]
    end = first.index(found["batch"][0][1])
    assert first[:end] == found["batch"][0][:end]
    assert set(first[end + 1 :]) == {256}
    if found["batch"][0][1] not in found["batch"][1]:
        assert found["stopped"][1] == found["batch"][1]


def test_what_cannot_be_decoded_is_refused(
    language_model: tuple[Transformer, dict[str, Any]],
) -> None:
    refused = language_model[1]["refused"]
    assert "only supports" in refused["beams"]
    assert "padding_side" in refused["right"]
    assert "vocabulary" in refused["vocabulary"]


def test_the_trainer_starts_from_our_loss_and_lowers_it(
    language_model: tuple[Transformer, dict[str, Any]],
) -> None:
    model, found = language_model
    tokens = torch.tensor([list(b"for i in range(100): print(i)" * 2)[:32]] * 2)
    model.train()
    expected = training_loss(model(tokens[:, :-1]), tokens[:, 1:])
    model.eval()
    first, second, evaluated = found["losses"]
    # what an expert has room for depends on nothing that comes later, so the last token is none
    assert first == pytest.approx(float(expected.detach()), abs=2e-2)
    assert second < first
    assert evaluated < second


def test_a_saved_folder_holds_weights_and_code(
    language_model: tuple[Transformer, dict[str, Any]],
) -> None:
    _, found = language_model
    assert found["saved"] is True
    assert found["saved by the trainer"] is True
    assert {"configuration_paretoformer.py", "modeling_paretoformer.py"} < set(found["code"])
    assert found["generation"]["max_new_tokens"] == N // 2
    assert found["generation"]["pad_token_id"] == 256


def test_a_classifier_abroad(tmp_path: Path) -> None:
    folder = tmp_path / "winner"
    arch = architecture(layer("bigbird"), layer("full"), halting={"type": "depth_adaptive"})
    exported(folder, arch, CLASSES, labels=CLASSES.labels())
    found = abroad("classifier", folder)
    assert found["ids"] == [byte + 1 for byte in b"import asyncio"]
    assert found["names"] == ["asyncio", "email", "importlib", "multiprocessing", "unittest", "xml"]
    first, second, _ = found["losses"]
    assert second < first
    assert found["saved"] is True
    assert found["other head"] == [3, 16]
    assert 0.02 < found["its spread"] < 0.15


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    tasks = (
        LM,
        CLASSES,
        Mqar(sequence_length=32, vocab_size=64, pairs=2),
        ListOps(min_length=8, max_length=24),
    )
    folders = [tmp_path / task.name / "winner" for task in tasks]
    for folder, task in zip(folders, tasks, strict=True):
        exported(folder, architecture(layer("full"), position="learned"), task)
        (folder.parent / "text.txt").write_text("for i in range(10): print(i)\n" * 20)
    assert abroad("readme", *folders) == {task.name: 3 for task in tasks}
    for folder in folders:
        assert (folder.parent / "tuned" / "model.safetensors").is_file()
