from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.catalogue.tasks import TextLM
from nas.errors import DataUnavailable
from nas.tasks import build_task, text_lm
from nas.tasks.python_source import source_files
from nas.tasks.text_lm import TextTask
from search_spaces.errors import InvalidInput

N = 32


def text_file(folder: Path, size: int) -> Path:
    """A text in which every 4-byte word, 255 and three digits of base 200, tells its position."""
    path = folder / "words.txt"
    words = (bytes((255, i // 40_000, i // 200 % 200, i % 200)) for i in range(size // 4 + 1))
    path.write_bytes(b"".join(words)[:size])
    return path


def positions(rows: torch.Tensor) -> set[int]:
    """The positions of all whole words in these rows."""
    return {
        row[i + 1] * 40_000 + row[i + 2] * 200 + row[i + 3]
        for row in rows.tolist()
        for i in range(row.index(255), len(row) - 3, 4)
    }


def build(path: Path, cache: Path, length: int = N) -> TextTask:
    task = build_task(TextLM(dataset="mine", sequence_length=length), dataset=path, cache=cache)
    assert isinstance(task, TextTask)
    return task


def test_targets_are_the_next_bytes_of_the_text(tmp_path: Path) -> None:
    content = text_file(tmp_path, 40_000).read_bytes()
    batch = build(tmp_path / "words.txt", tmp_path).training_batch(0, 4, 0)
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        window = bytes(tokens.tolist() + targets[-1:].tolist())
        assert window in content
        assert targets[:-1].equal(tokens[1:])


def test_parts_of_a_users_text_do_not_overlap_and_are_in_order(tmp_path: Path) -> None:
    size = 40_000
    task = build(text_file(tmp_path, size), tmp_path)
    parts = {
        "train": [task.training_batch(i, 64, 0) for i in range(60)],
        "validation": list(task.evaluation_batches("validation", 8, None)),
        "test": list(task.evaluation_batches("test", 8, None)),
    }
    words = {name: positions(torch.cat([b.tokens for b in p])) for name, p in parts.items()}
    assert max(words["train"]) < min(words["validation"])
    assert max(words["validation"]) < min(words["test"])
    assert max(words["train"]) > 0.75 * size / 4
    assert min(words["validation"]) == pytest.approx(0.8 * size / 4, abs=2)
    assert min(words["test"]) == pytest.approx(0.9 * size / 4, abs=2)


def test_the_least_text_is_enough_and_one_byte_less_is_not(tmp_path: Path) -> None:
    config = TextLM(dataset="mine", sequence_length=N)
    task = build(text_file(tmp_path, config.minimum_bytes()), tmp_path)
    for split in ("validation", "test"):
        assert sum(len(b.tokens) for b in task.evaluation_batches(split, 3, None)) == 4
    with pytest.raises(InvalidInput) as refused:
        build(text_file(tmp_path, config.minimum_bytes() - 1), tmp_path)
    problem = refused.value.problems[0]
    assert problem.pointer == "/task/dataset"
    assert str(config.minimum_bytes() - 1) in problem.message
    assert str(config.minimum_bytes()) in problem.allowed[0]


def test_an_empty_file_is_refused_like_a_short_one(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InvalidInput, match="0 bytes are too few"):
        build(tmp_path / "empty", tmp_path)


def test_a_missing_file_and_a_missing_upload_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="cannot read"):
        build(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataUnavailable, match="'mine' is not here"):
        build_task(TextLM(dataset="mine"), dataset=None, cache=tmp_path)


def test_held_out_parts_of_a_long_text_stop_growing() -> None:
    config = TextLM()
    assert config.held_out_bytes(1000) == 100
    assert config.held_out_bytes(10**9) == config.held_out_bytes(10**10)
    longest = TextLM(sequence_length=65536)
    assert longest.held_out_bytes(longest.minimum_bytes()) > 4 * 65536


def test_every_byte_can_be_trained_on(tmp_path: Path) -> None:
    length = 16
    size = TextLM(dataset="mine", sequence_length=length).minimum_bytes()
    task = build(text_file(tmp_path, size), tmp_path, length)
    last = size - 2 * (size // 10)
    content = (tmp_path / "words.txt").read_bytes()
    batch = task.training_batch(0, 20_000, 0)
    ends = {bytes(row[-8:]) for row in batch.targets.numpy().astype(np.uint8)}
    assert content[last - 8 : last] in ends
    starts = {bytes(row[:8]) for row in batch.tokens.numpy().astype(np.uint8)}
    assert content[:8] in starts


def test_trivial_loss_is_that_of_the_training_frequencies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = rng.choice(np.frombuffer(b"abcd", dtype=np.uint8), 20_000, p=[0.4, 0.3, 0.2, 0.1])
    (tmp_path / "abcd").write_bytes(content.tobytes())
    entropy = -sum(p * np.log(p) for p in (0.4, 0.3, 0.2, 0.1))
    assert build(tmp_path / "abcd", tmp_path).trivial_loss == pytest.approx(entropy, abs=0.04)


def test_another_text_has_another_hash(tmp_path: Path) -> None:
    path = text_file(tmp_path, 40_000)
    first = build(path, tmp_path).data_hash
    assert build(path, tmp_path, length=64).data_hash == first
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert build(path, tmp_path).data_hash != first


def test_no_source_file_is_in_two_parts_and_shares_are_kept() -> None:
    files = [(f"package/m{i}.py", 1000 + 37 * i % 5000) for i in range(400)]
    train, validation, test = text_lm._split_files(files)
    assert sorted(train + validation + test) == sorted(files)
    total = sum(size for _, size in files)
    for part in (validation, test):
        assert 0.05 <= sum(size for _, size in part) / total < 0.06
    assert text_lm._split_files(list(reversed(files))) == (train, validation, test)


def test_the_source_leaves_out_tests_packages_and_build_records() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    names = [name for name, _ in source_files(root)]
    assert "json/decoder.py" in names
    assert not [n for n in names if "/tests/" in f"/{n}" or "site-packages" in n]
    assert not [n for n in names if n.startswith(("test/", "_sysconfigdata"))]


def test_the_cached_source_is_used_and_a_damaged_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    (library / "test").mkdir(parents=True)
    for i in range(400):
        (library / f"m{i:03}.py").write_text(f"x{i} = {i}\n" * 50)
    (library / "test" / "t.py").write_text("assert True")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(library))
    cache = tmp_path / "cache"
    first = build_task(TextLM(sequence_length=16), dataset=None, cache=cache)
    (cached,) = cache.iterdir()
    assert b"assert True" not in cached.read_bytes()
    written = cached.stat().st_mtime_ns
    again = build_task(TextLM(sequence_length=16), dataset=None, cache=cache)
    assert (again.data_hash, cached.stat().st_mtime_ns) == (first.data_hash, written)
    (library / "m000.py").write_text("y = 1\n")
    changed = build_task(TextLM(sequence_length=16), dataset=None, cache=cache)
    assert changed.data_hash != first.data_hash
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataUnavailable, match="damaged"):
        build_task(TextLM(sequence_length=16), dataset=None, cache=cache)
