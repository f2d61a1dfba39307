from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nas.catalogue.tasks import Mqar, NoisyRecall, SelectiveCopying, TaskConfig
from nas.tasks import build_task, mqar, noisy_recall, selective_copying
from nas.tasks.base import IGNORED
from nas.tasks.generated import distinct
from search_spaces.errors import InvalidInput

CONFIGS = [Mqar(), SelectiveCopying(), NoisyRecall()]


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_every_key_is_asked_for_once_and_answered_by_its_value() -> None:
    config = Mqar(sequence_length=64, pairs=6, vocab_size=40)
    tokens, targets = mqar.draw(rng(), 200, config)
    for row, answers in zip(tokens, targets, strict=True):
        stands_for = dict(zip(row[:12:2].tolist(), row[1:12:2].tolist(), strict=True))
        assert len(stands_for) == 6
        assert all(1 <= key < 20 <= value < 40 for key, value in stands_for.items())
        asked = np.flatnonzero(answers != IGNORED)
        assert asked.min() >= 12
        assert (asked % 2 == 0).all()
        assert {int(row[i]): int(answers[i]) for i in asked} == stands_for


def test_keys_come_again_sooner_rather_than_later() -> None:
    config = Mqar(sequence_length=512, pairs=4, vocab_size=64)
    _, targets = mqar.draw(rng(), 400, config)
    _, asked = np.nonzero(targets != IGNORED)
    gaps = (asked - 8) // 2
    assert gaps.min() == 0
    assert gaps.max() > 200
    # of a law close to 1 / g, the first 16 of 252 places draw more than half
    assert (gaps < 16).mean() > 0.5


def test_what_stood_among_blanks_is_repeated_in_order() -> None:
    config = SelectiveCopying(sequence_length=48, copied=5, vocab_size=9)
    tokens, targets = selective_copying.draw(rng(), 200, config)
    places = set()
    for row, answers in zip(tokens, targets, strict=True):
        (signal,) = np.flatnonzero(row == 8)
        assert signal == 48 - 5 - 1
        stood = np.flatnonzero(row[:signal] != 7)
        assert (row[signal + 1 :] == 7).all()
        assert answers[signal + 1 :].tolist() == row[stood].tolist()
        assert (answers[: signal + 1] == IGNORED).all()
        places.add(tuple(stood.tolist()))
    assert len(places) > 190


def test_a_key_is_asked_for_when_it_was_there_before() -> None:
    config = NoisyRecall(sequence_length=40, vocab_size=14, noise_tokens=4, noise=0.3)
    tokens, targets = noisy_recall.draw(rng(), 300, config)
    noisy = 0
    for row, answers in zip(tokens, targets, strict=True):
        known: dict[int, int] = {}
        for i in range(0, 40, 2):
            key, value = int(row[i]), int(row[i + 1])
            assert answers[i + 1] == IGNORED
            if key >= 10:
                noisy += 1
                assert value >= 10
                assert answers[i] == IGNORED
                continue
            assert 0 <= key < 5 <= value < 10
            assert answers[i] == known.get(key, IGNORED)
            assert known.setdefault(key, value) == value
        assert answers[38] != IGNORED
    assert noisy / (300 * 18) == pytest.approx(0.3, abs=0.03)


def test_places_are_drawn_by_their_weights_and_differ() -> None:
    drawn = distinct(rng(), 4000, 2, np.array([6.0, 3.0, 1.0, 1e-12]))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    share = np.bincount(drawn[:, 0], minlength=4) / 4000
    assert share.tolist() == pytest.approx([0.6, 0.3, 0.1, 0.0], abs=0.03)
    # after the first, what is left by its own weight
    second = drawn[drawn[:, 0] == 0, 1]
    assert (second == 1).mean() == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_the_trivial_loss_is_that_of_the_targets(config: TaskConfig, tmp_path: Path) -> None:
    task = build_task(config, dataset=None, cache=tmp_path)
    seen = np.concatenate(
        [
            batch.targets[batch.targets != IGNORED].numpy()
            for batch in task.evaluation_batches("validation", 100, None)
        ]
    )
    kinds = np.exp(task.trivial_loss)
    counts = np.bincount(seen)
    counts = counts[counts > 0]
    assert len(counts) <= round(kinds)
    assert len(counts) > 0.8 * kinds
    assert counts.max() < 3 * len(seen) / kinds + 10


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_it_takes_no_data(config: TaskConfig, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_task(config, dataset=tmp_path / "mine", cache=tmp_path)
    assert caught.value.problems[0].pointer == "/task/dataset"


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Mqar(sequence_length=64, pairs=17), "do not fit"),
        (lambda: Mqar(pairs=8, vocab_size=16), "not enough keys"),
        (lambda: SelectiveCopying(sequence_length=32, copied=16), "do not fit"),
        (lambda: NoisyRecall(vocab_size=16, noise_tokens=15), "no key and value"),
        (lambda: NoisyRecall(sequence_length=33), "multiple of 2"),
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused(
    build: Callable[[], TaskConfig], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        build()
