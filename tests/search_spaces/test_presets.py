"""The packaged spaces: found by name, and every promise on two thousand of their architectures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import search_spaces.presets
from search_spaces import Architecture, InvalidSpace, SpaceDefinition, list_spaces, load_space
from search_spaces.architecture import problems
from search_spaces.attention import ATTENTION

LABELS = [f"{name}@{version}" for name, version in list_spaces()]

NAMES = ("efficient-encoder", "efficient-lm", "survey-encoder", "survey-lm", "tiny")


@pytest.mark.parametrize("label", LABELS)
def test_two_thousand_samples_keep_every_promise(label: str) -> None:
    space = load_space(label)
    rng = random.Random(label)
    for _ in range(2000):
        arch = space.sample(rng)
        assert problems(arch, causal=space.causal) == []
        assert space.contains(arch)
        assert space.assemble(space.decisions(arch)) == arch
        read = Architecture.model_validate_json(arch.model_dump_json())
        assert read == arch
        assert read.fingerprint() == arch.fingerprint() == space.fingerprint(arch)


@pytest.mark.parametrize("label", LABELS)
def test_a_preset_is_what_its_file_is_called(label: str) -> None:
    space = load_space(label)
    assert f"{space.name}@{space.version}" == label
    assert space.definition.description


def test_the_presets_offer_what_they_are_for() -> None:
    kinds = {label: {o.type for o in load_space(label).definition.attention} for label in LABELS}
    assert kinds["efficient-lm@1"] == {"full", "longformer", "performer", "linear"}
    assert kinds["efficient-encoder@1"] == kinds["efficient-lm@1"] | {"linformer"}
    causal = {label: load_space(label).causal for label in LABELS}
    assert causal == {
        "efficient-encoder@1": False,
        "efficient-lm@1": True,
        "survey-encoder@1": False,
        "survey-lm@1": True,
        "tiny@1": True,
    }
    every = set(ATTENTION)
    assert kinds["survey-encoder@1"] == every
    assert kinds["survey-lm@1"] == {name for name in every if ATTENTION[name].causal}
    assert 100 < load_space("tiny").size() < 1000


def test_encoders_have_linformer_where_positions_allow_it() -> None:
    space = load_space("efficient-encoder")
    arches = [space.sample(seed) for seed in range(500)]
    having = {a.position for a in arches for la in a.layers if la.attention.type == "linformer"}
    assert having == {"sinusoidal", "learned"}
    assert any(a.position == "rotary" for a in arches)


def test_a_name_means_the_newest_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (2, 10, 9):
        (tmp_path / f"mine-{version}.yaml").write_text(
            f"{{name: mine, version: {version}, causal: true, width: 32, depth: 1, heads: 2,"
            " attention: full}"
        )
    (tmp_path / "README.md").write_text("")
    monkeypatch.setattr(search_spaces.presets, "_FOLDER", tmp_path)
    search_spaces.presets._files.cache_clear()
    try:
        assert list_spaces() == [("mine", 2), ("mine", 9), ("mine", 10)]
        assert load_space("mine").version == 10
        assert load_space("mine@9").version == 9
    finally:
        search_spaces.presets._files.cache_clear()


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        ("efficient", NAMES),
        ("../presets/tiny", NAMES),
        ("/etc/passwd", NAMES),
        ("", NAMES),
        ("tiny@7", ("tiny@1",)),
        ("tiny@", ("tiny@1",)),
        ("tiny@01", ("tiny@1",)),
    ],
)
def test_other_names_are_refused_with_those_there_are(
    wanted: str, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidSpace) as refused:
        load_space(wanted)
    assert [problem.allowed for problem in refused.value.problems] == [allowed]


def test_a_definition_or_a_document_is_loaded_as_it_is() -> None:
    document: dict[str, Any] = {
        "causal": True,
        "width": 32,
        "depth": 1,
        "heads": 2,
        "attention": "full",
    }
    definition = SpaceDefinition.model_validate(document)
    assert load_space(document) == load_space(definition)
    assert load_space("tiny") == load_space(load_space("tiny").definition)
