"""Tables, each with a quality and a cost to search for: published ones, and our own with rungs.

Where a table's cost is not published, it is computed here from the genotype.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.survey import survey
from benchmarks.search.tables import Row, TableMissing, TableSpace
from nas.search.objectives import Objectives
from nas.search.pareto import Floats, hypervolume
from search_spaces.values import Domain

BERT = "nas_bench_bert.json"
BERT_COUNTS = "nas_bench_bert_proxies.csv"
LTS = "lts_random.csv"
PUBLISHED = {
    BERT: "github.com/aaronserianni/training-free-nas, data/BERT_benchmark.json (CC-BY 4.0)",
    BERT_COUNTS: "github.com/aaronserianni/training-free-nas, "
    "data/BERT_results_activation.csv (CC-BY 4.0)",
    LTS: "github.com/microsoft/archai, branch neurips-lts, archai/nlp/nas/saved_logs/random_* "
    "(MIT), as one CSV: set, config, layers, d_model, heads, d_inner, d_embed, valid_ppl, "
    "test_ppl, train_seconds, parameters_nonembedding, parameters_total",
}
TOKENS = 128
"""Sequence length at which the FLOPs of NAS-Bench-BERT are counted."""
MARGIN = 1.1
"""The reference point, in units of the table's range: a tenth worse than the worst."""
QUARTERS = 4


@dataclass(frozen=True)
class Bed:
    """A table, what is searched for on it, and its full hypervolume.

    points: (T, 2) quality and log10 cost of each row, in units of the table's range, 0 the best.
    """

    name: str
    space: TableSpace
    objectives: tuple[str, str]
    points: Floats
    full: float

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps of each rung, ascending."""
        return self.space.steps

    @property
    def top(self) -> int:
        """The rung of full training: 0 where there is no other."""
        return len(self.steps) - 1

    def share(self, rows: Sequence[int]) -> float:
        """Of the table's hypervolume, that of these rows, all fully trained."""
        return hypervolume(self.points[list(rows)], [MARGIN, MARGIN]) / self.full


def load_beds(folder: Path, names: Sequence[str] | None = None) -> list[Bed]:
    """The beds of these names, all by default.

    Raises:
        TableMissing: one of their tables is not there.
        ValueError: there is no bed of such a name.
    """
    wanted = list(BEDS) if names is None else list(names)
    if unknown := set(wanted) - set(BEDS):
        raise ValueError(f"no beds {sorted(unknown)}; there are {', '.join(BEDS)}")
    return [_bed(name, folder) for name in wanted]


def _bed(name: str, folder: Path) -> Bed:
    table, objectives = BEDS[name]
    space = table(folder)
    wanted = Objectives.of(objectives)
    rows = np.array([wanted.row(row.metrics) for row in space.rows])
    low, high = rows.min(axis=0), rows.max(axis=0)
    points = (rows - low) / (high - low)
    return Bed(name, space, objectives, points, hypervolume(points, [MARGIN, MARGIN]))


def _read(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file():
        raise TableMissing(f"{path} is not there. It is published at {PUBLISHED[name]}")
    return path.read_text()


# --- NAS-Bench-BERT: Serianni and Kalita 2023, arXiv:2306.04800 ---------------------------------


def nas_bench_bert(folder: Path) -> TableSpace:
    """500 encoders; accuracy is GLUE, flops by ``bert_flops``, parameters as published.

    The published count takes every encoder as 256 wide with 1,024 inner units.
    """
    counted = {
        int(row["ID"]): float(row["Number of Parameters"])
        for row in csv.DictReader(_read(folder, BERT_COUNTS).splitlines())
    }
    rows = []
    for entry in json.loads(_read(folder, BERT)):
        genotype = entry["hparams"]["model_hparam_overrides"]
        width, layers = genotype["hidden_size"], genotype["nas_config"]["encoder_layers"]
        weights, flops = bert_flops(width, layers)
        blocks = [_bert_block(layer) for layer in layers]
        metrics = {
            "accuracy": entry["scores"]["glue"] / 100,
            "parameters": counted[entry["id"]],
            "flops": flops,
        }
        shared = {"depth": len(layers), "width": width}
        described = {"log_weights": math.log(weights), **shared, **dict(_bert_descriptors(blocks))}
        rows.append(Row(_decisions(shared, blocks), _frozen(blocks), described, metrics))
    return TableSpace(rows, _domains(rows))


def bert_flops(width: int, layers: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Weights in matrices, and FLOPs of a forward pass of one sequence, embeddings left out.

    D wide, N tokens, F inner units, H heads, k taps; two FLOPs a multiplication. Every layer has an
    output projection D² and a stack of feed-forward layers, 2·D·F and F² for each beyond the first.
    Self-attention: 3·D² (one more D² when weighted multiplicative) and 2·N²·D to mix. Fourier and
    cosine transforms: 5·N·D·log₂(N·D) FLOPs. Span-based dynamic convolution, half as wide: five
    projections D·D/2, k·D taps by depth, k·D·H/4 that make the kernels, N·k·D/2 to mix.
    """
    D, N = width, TOKENS
    weights = mixing = 0.0
    for layer in layers:
        F, stacked = layer["feed_forward_dimension"], layer["num_feed_forward"]
        kind, k, H = (
            layer[f] for f in ("operation_type", "operation_parameter", "num_operation_heads")
        )
        weights += D * D + 2 * D * F + (stacked - 1) * F * F
        if kind == "SA":
            weights += (4 if k == "WMA" else 3) * D * D
            mixing += 2 * N * N * D
        elif kind == "LT":
            mixing += 2.5 * N * D * math.log2(N * D)
        else:
            weights += 2.5 * D * D + k * D + k * D * H / 4
            mixing += N * k * D / 2
    return weights, 2 * (N * weights + mixing)


def _bert_block(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "operation": f"{layer['operation_type']} {layer['operation_parameter']}",
        "heads": layer["num_operation_heads"],
        "inner": layer["feed_forward_dimension"],
        "stacked": layer["num_feed_forward"],
    }


def _bert_descriptors(blocks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    operations = ("SA SDP", "SA WMA", "LT DFT", "LT DCT", "DSC 5", "DSC 9")
    yield from _by_quarter(operations, [block["operation"] for block in blocks])
    yield "heads", float(sum(block["heads"] for block in blocks))
    yield "inner", float(sum(block["inner"] for block in blocks))
    yield "stacked", float(sum(block["stacked"] for block in blocks))


# --- LiteTransformerSearch: Javaheripi et al. 2022, arXiv:2203.02094 ----------------------------


def lts(kind: str) -> Callable[[Path], TableSpace]:
    """One of the four sets of decoders: perplexity, parameters (all) and seconds of training."""

    def table(folder: Path) -> TableSpace:
        of_set = f"random_{kind}"
        lines = csv.DictReader(_read(folder, LTS).splitlines())
        rows = [_lts_row(line) for line in lines if line["set"] == of_set]
        return TableSpace(rows, _domains(rows))

    return table


def _lts_row(line: Mapping[str, str]) -> Row:
    width, embedded = int(line["d_model"]), int(line["d_embed"])
    heads, inner = json.loads(line["heads"]), json.loads(line["d_inner"])
    # inner widths are drawn from 1,500 integers, of which a choice among twelve is left
    blocks = [
        {"heads": h, "inner": 128 * round(i / 128)} for h, i in zip(heads, inner, strict=True)
    ]
    shared = {
        "depth": len(blocks),
        "width": width,
        "embedding": width if embedded < 0 else embedded,
    }
    described = {
        "log_weights": math.log(float(line["parameters_nonembedding"])),
        **{name: float(value) for name, value in shared.items()},
        "heads": float(sum(heads)),
        "inner": float(sum(inner)),
        "inner.late": float(sum(inner[len(inner) // 2 :])) / sum(inner),
    }
    metrics = {
        "perplexity": float(line["valid_ppl"]),
        "parameters": float(line["parameters_total"]),
        "log10_training_seconds": math.log10(float(line["train_seconds"])),
    }
    return Row(_decisions(shared, blocks), _frozen(blocks), described, metrics)


# --- both ---------------------------------------------------------------------------------------


def _decisions(shared: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    layers = {f"layer.{i}.{n}": v for i, block in enumerate(blocks) for n, v in block.items()}
    return {**shared, **layers}


def _frozen(blocks: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(block.values()) for block in blocks]


def _domains(rows: Sequence[Row]) -> dict[str, Domain]:
    """Of each decision the values that occur, of a layer's those of all layers."""
    found: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.decisions.items():
            found.setdefault(_in_any_layer(name), set()).add(value)
    deepest = max(rows, key=lambda row: len(row.layers)).decisions
    return {name: Domain(tuple(sorted(found[_in_any_layer(name)]))) for name in deepest}


def _in_any_layer(name: str) -> str:
    return name.split(".")[-1]


def _by_quarter(kinds: Sequence[str], layers: Sequence[str]) -> Iterator[tuple[str, float]]:
    """How many layers of each kind are in each quarter of the stack, in parts of layers."""
    share = len(layers) / QUARTERS
    for kind in kinds:
        for quarter in range(QUARTERS):
            low, high = quarter * share, (quarter + 1) * share
            overlap = (
                max(0.0, min(high, i + 1) - max(low, i))
                for i, layer in enumerate(layers)
                if layer == kind
            )
            yield f"{kind}.quarter_{quarter + 1}", sum(overlap)


Table = Callable[[Path], TableSpace]
BEDS: dict[str, tuple[Table, tuple[str, str]]] = {
    "bert-parameters": (nas_bench_bert, ("accuracy", "parameters")),
    "bert-flops": (nas_bench_bert, ("accuracy", "flops")),
    **{
        f"lts-{kind.lower().replace('_', '-')}-{short}": (lts(kind), ("perplexity", cost))
        for kind in ("GPT2_wt103", "GPT2_lm1b", "TransXL_wt103", "TransXL_lm1b")
        for short, cost in (("parameters", "parameters"), ("seconds", "log10_training_seconds"))
    },
    "survey-parameters": (survey, ("loss", "parameters")),
    "survey-flops": (survey, ("loss", "flops")),
}
"""Each bed: its table, the quality and the cost."""
