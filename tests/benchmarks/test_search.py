"""The replay benchmark on small tables made here: its adapters, its counting, its statistics."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.search.__main__ import arguments, main, tasks
from benchmarks.search.beds import Bed, bert_flops, load_beds
from benchmarks.search.plot import quartiles
from benchmarks.search.replay import Run, run, summarise
from benchmarks.search.report import document, table
from benchmarks.search.rivals import ALL, BASELINE, WITH_RUNGS, Optuna, Ours
from benchmarks.search.tables import TableMissing, one_hot, segmented
from nas.search.strategies import strategy_class


def layer(rng: random.Random) -> dict[str, Any]:
    kind, parameter = rng.choice([("SA", "SDP"), ("LT", "DFT"), ("DSC", 5)])
    return {
        "operation_type": kind,
        "operation_parameter": parameter,
        "num_operation_heads": rng.choice([2, 4]),
        "feed_forward_dimension": rng.choice([512, 1024]),
        "num_feed_forward": rng.choice([1, 3]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of the published forms, of forty encoders and thirty decoders."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("tables")
    entries = []
    for number in range(40):
        layers = [layer(rng) for _ in range(rng.choice([2, 4]))]
        if number == 7:
            layers = layers[:1] * 2  # the only homogeneous one
        attentive = sum(block["operation_type"] == "SA" for block in layers)
        score = 60 + 2 * len(layers) + 3 * attentive + rng.random()
        genotype = {"hidden_size": rng.choice([128, 256]), "nas_config": {"encoder_layers": layers}}
        entries.append(
            {
                "id": number,
                "scores": {"glue": score},
                "hparams": {"model_hparam_overrides": genotype},
            }
        )
    (path / "nas_bench_bert.json").write_text(json.dumps(entries))
    write(
        path / "nas_bench_bert_proxies.csv",
        [{"ID": n, "Number of Parameters": 4e6 + 1e5 * (n * 7 % 40)} for n in range(40)],
    )
    write(path / "lts_random.csv", [decoder(rng, n) for n in range(30)])
    return path


def decoder(rng: random.Random, number: int) -> dict[str, Any]:
    depth, width = rng.randint(2, 5), rng.choice([128, 256])
    return {
        "set": "random_GPT2_lm1b" if number < 25 else "random_GPT2_wt103",
        "d_model": width,
        "heads": json.dumps([rng.choice([2, 4]) for _ in range(depth)]),
        "d_inner": json.dumps([rng.randint(512, 2048) for _ in range(depth)]),
        "d_embed": -1,
        "valid_ppl": 90 - 5 * depth - width / 16 + rng.random(),
        "train_seconds": 1000.0 * depth * width,
        "parameters_nonembedding": 1e4 * depth * width,
        "parameters_total": 1e4 * depth * width + 1e6 * number,
    }


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(scope="module")
def bed(folder: Path) -> Bed:
    return load_beds(folder, ["bert-flops"])[0]


def test_a_missing_table_is_named_with_its_source(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TableMissing, match=r"lts_random\.csv is not there.*microsoft/archai"):
        load_beds(tmp_path, ["lts-gpt2-lm1b-parameters"])
    with pytest.raises(ValueError, match="bert-parameters"):
        load_beds(folder, ["imagenet"])


def test_beds_take_their_rows_and_scale_them(folder: Path) -> None:
    (decoders,) = load_beds(folder, ["lts-gpt2-lm1b-parameters"])
    assert len(decoders.space.rows) == 25
    assert decoders.points.min() == 0
    assert decoders.points.max() == 1
    assert decoders.share(range(25)) == pytest.approx(1.0)
    assert 0 < decoders.share([3]) < 1
    assert decoders.space.decisions(0)["embedding"] == decoders.space.decisions(0)["width"]


def test_flops_are_counted_by_the_stated_arithmetic() -> None:
    block = {
        "operation_type": "SA",
        "operation_parameter": "SDP",
        "num_operation_heads": 2,
        "feed_forward_dimension": 512,
        "num_feed_forward": 3,
    }
    weights, flops = bert_flops(256, [block])
    assert weights == 4 * 256**2 + 2 * 256 * 512 + 2 * 512**2
    assert flops == 2 * (128 * weights + 2 * 128**2 * 256)


def test_decisions_lead_back_to_their_row_and_others_to_the_nearest(bed: Bed) -> None:
    space = bed.space
    for row in range(40):
        found = space.assemble(space.decisions(row))
        assert space.decisions(found) == space.decisions(row)
    shallow = next(r for r in range(40) if space.decisions(r)["depth"] == 2)
    beyond = {name: domain.values[0] for name, domain in space.domains().items()}
    assert space.assemble({**beyond, **space.decisions(shallow)}) == shallow
    widened = {**space.decisions(shallow), "width": 384 - int(space.decisions(shallow)["width"])}
    near = space.decisions(space.assemble(widened))
    assert sum(near.get(n) != v for n, v in widened.items()) <= 4
    assert space.size() == 2 * (24**2 + 24**4)


def test_a_table_can_keep_to_few_segments(bed: Bed) -> None:
    view = segmented(bed.space)
    rng = random.Random(0)
    drawn = {view.sample(rng, 2) for _ in range(60)}
    for row in drawn:
        blocks = view.rows[row].layers
        half = len(blocks) // 2
        assert len(set(blocks[:half])) == len(set(blocks[half:])) == 1
    assert {len(view.rows[view.sample(rng)].layers) for _ in range(60)} == {2, 4}


def test_a_row_can_be_described_by_its_choices_alone(bed: Bed) -> None:
    view = one_hot(bed.space)
    described = view.describe(7)
    held = bed.space.decisions(7)
    assert described[f"width={held['width']}"] == 1
    assert sum(described.values()) == len(held)
    assert described.keys() == view.describe(8).keys()


@pytest.mark.parametrize("name", [n for n in ALL if "gp" not in n])
def test_every_rival_trains_each_row_once(name: str, bed: Bed) -> None:
    trainings = list(itertools.islice(ALL[name](bed, 0), 40))
    assert {training.rung for training in trainings} == {0}
    rows = [training.row for training in trainings]
    assert len(set(rows)) == len(rows)
    if name == "homogeneous":
        assert rows == list(bed.space.homogeneous())
    else:
        assert len(rows) > (39 if name == BASELINE or name.startswith("optuna") else 20)


@pytest.mark.parametrize("marks", [False, True])
def test_optuna_is_told_of_the_row_that_was_trained(marks: bool, bed: Bed) -> None:
    studies: list[optuna.Study] = []

    class Watched(optuna.samplers.RandomSampler):
        def after_trial(self, study: Any, *args: Any) -> None:
            studies.append(study)
            super().after_trial(study, *args)

    rival = Optuna(lambda seed: Watched(seed=seed), marks=marks)
    trainings = list(itertools.islice(rival(bed, 0), 6))
    told = [t for t in studies[0].get_trials() if t.state.name == "COMPLETE"]
    domains = bed.space.domains()
    for (row, _), trial in zip(trainings, told, strict=False):
        held = bed.space.decisions(row)
        assert {n: domains[n].values[trial.params[n]] for n in held} == held
        accuracy = bed.space.rows[row].metrics["accuracy"]
        assert trial.values[0] == pytest.approx(-accuracy)
    assert len(told) == 5


def test_optunas_nsga2_breeds_from_what_was_trained(bed: Bed) -> None:
    studies: list[optuna.Study] = []

    class Watched(optuna.samplers.NSGAIISampler):
        def after_trial(self, study: Any, *args: Any) -> None:
            studies.append(study)
            super().after_trial(study, *args)

    rival = ALL["optuna-nsga2"]
    assert isinstance(rival, Optuna)
    watched = replace(rival, sampler=lambda seed: Watched(seed=seed, population_size=8))
    list(itertools.islice(watched(bed, 0), 25))
    told = [t for t in studies[0].get_trials() if t.state.name == "COMPLETE"]
    generations = [t.system_attrs.get("Watched:generation") for t in told]
    assert generations == [0] * 8 + [1] * 8 + [2] * 8


def test_without_exact_cost_a_strategy_learns_the_cost_too(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Any] = []
    created = strategy_class("random").__init__

    def noted(self: Any, *args: Any, known_costs: Any, **kwargs: Any) -> None:
        known.append(known_costs)
        created(self, *args, known_costs=known_costs, **kwargs)

    monkeypatch.setattr(strategy_class("random"), "__init__", noted)
    for exact in (True, False):
        next(Ours("random", exact_cost=exact)(bed, 0))
    assert known[0](3) == {"flops": bed.space.rows[3].metrics["flops"]}
    assert known[1] is None


def test_a_run_counts_trainings_until_it_arrives(bed: Bed) -> None:
    found = run(bed, "random", ALL["random"], 0, 1000)
    assert found.shares[-1] >= 0.99 > found.shares[-2]
    assert found.trainings(0.99) == len(found.shares)
    assert found.trainings(0.85) <= found.trainings(0.95)
    assert math.isinf(run(bed, "random", ALL["random"], 0, 2).trainings(0.99))


def made(rival: str, seed: int, trainings: int, arrives: bool = True) -> Run:
    shares = (*[0.5] * (trainings - 1), 1.0 if arrives else 0.6)
    return Run("a bed", rival, seed, shares, tuple(map(float, range(1, trainings + 1))), 0.1)


def test_ratios_are_paired_and_failures_count_as_never() -> None:
    baseline = {seed: made("random", seed, 100 + 20 * seed) for seed in range(5)}
    mine = [made("pareto", seed, 10 + 2 * seed) for seed in range(5)]
    found = summarise(mine, baseline, 0.95)
    assert (found.trainings, found.failures) == (14, 0)
    assert found.low == found.ratio == found.high == 10
    mine[:3] = [made("pareto", seed, 10, arrives=False) for seed in range(3)]
    found = summarise(mine, baseline, 0.95)
    assert found.failures == 3
    assert math.isinf(found.trainings)
    assert (found.low, found.ratio, found.high) == (0, 0, 10)


def test_the_table_has_a_line_for_each_rival() -> None:
    runs = [made(name, seed, 20 + seed) for name in ("pareto", "random") for seed in range(3)]
    title, _, _, *lines = table("a bed", [*runs, made("late", 0, 30, arrives=False)])
    assert "3 seeds" in title
    assert "that pareto needs" in title
    assert [line.split()[1] for line in lines] == ["pareto", "random", "late"]
    assert "1.0 [1.0, 1.0]" in lines[0]
    assert "never (1)" in lines[2]
    assert "inf [inf, inf]" in lines[2]


def test_the_same_is_written_for_programs() -> None:
    runs = [made("pareto", 0, 10), made("random", 0, 40), made("late", 0, 30, arrives=False)]
    written = json.loads(json.dumps(document(runs), allow_nan=False))
    assert [run["rival"] for run in written["runs"]] == ["pareto", "random", "late"]
    found = {(s["rival"], s["against"], s["target"]): s for s in written["summaries"]}
    assert found["pareto", "random", 0.95]["ratio"] == 4
    assert found["random", "pareto", 0.95]["ratio"] == 0.25
    late = found["late", "pareto", 0.99]
    assert (late["trainings"], late["failures"], late["ratio"]) == (None, 1, 0)


def test_a_picture_shows_each_share_from_where_it_was_reached() -> None:
    quick = Run("a bed", "pareto", 0, (0.2, 1.0), (0.5, 1.0), 0.1)
    slow = Run("a bed", "pareto", 1, (0.4,), (2.0,), 0.1)
    spent, (low, middle, high) = quartiles([quick, slow])
    assert spent.tolist() == [0.5, 1.0, 2.0]
    assert middle.tolist() == pytest.approx([0.1, 0.5, 0.7])
    assert (low <= middle).all()
    assert (middle <= high).all()


def test_the_command_runs_rivals_and_writes_what_they_did(
    folder: Path, bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given = [str(folder), "--beds", "bert-flops", "--rivals", "homogeneous", "--seeds", "2"]
    assert {name for name, _, _ in tasks(arguments(given), bed)} == {"homogeneous", BASELINE}
    assert not {name for name, _, _ in tasks(arguments([str(folder)]), bed)} & {*WITH_RUNGS}
    written, picture = tmp_path / "runs.json", tmp_path / "runs.png"
    monkeypatch.setattr(
        "sys.argv", ["search", *given, "--json", str(written), "--plot", str(picture)]
    )
    main()
    runs = json.loads(written.read_text())["runs"]
    assert [(r["rival"], r["seed"]) for r in runs] == [
        (name, seed) for name in ("homogeneous", "random") for seed in (0, 1)
    ]
    assert np.all(np.diff(runs[2]["shares"]) >= 0)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| random" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["search", str(tmp_path), "--beds", "bert-flops"])
    with pytest.raises(SystemExit, match="training-free-nas"):
        main()
    monkeypatch.setattr("benchmarks.search.survey.COMMITTED", tmp_path / "none.jsonl")
    monkeypatch.setattr("sys.argv", ["search", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no table"):
        main()
    assert "lts_random.csv is not there" in capsys.readouterr().err
