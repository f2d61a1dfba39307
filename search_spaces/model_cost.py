"""What a whole model costs, from the costs of its parts.

Letters: B batch, N sequence, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from search_spaces.architecture import Architecture
from search_spaces.attention.base import AttentionSpec
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.halting.base import HaltingSlot, HaltingSpec
from search_spaces.layer_cost import LayerCost, Shape, layer_cost, state_bytes
from search_spaces.model_memory import Work, answering_bytes, training_bytes
from search_spaces.norms import norm_parameters

MEGABYTE = 1e6


@dataclass(frozen=True)
class ModelCost:
    """Costs of a batch; memory in MB of 10⁶ bytes (see the metrics' texts).

    active_parameters: without those of experts that a token does not meet.  unshared_parameters: of
    all layers run, each with weights of its own.  decoding_memory_mb: None if it does not decode.
    """

    parameters: int
    non_embedding_parameters: int
    active_parameters: int
    unshared_parameters: int
    flops: int
    flops_low: int
    training_flops: int
    peak_memory_mb: float
    training_memory_mb: float
    decoding_memory_mb: float | None

    def metrics(self) -> dict[str, float]:
        """By the names of ``nas.catalogue.metrics``; without those that the model does not have."""
        return {name: float(v) for name, v in vars(self).items() if v is not None}


@lru_cache(maxsize=4096)
def _halting(spec: HaltingSpec, batch: int, length: int, slot: HaltingSlot) -> Cost:
    return spec.cost(batch, length, slot)


def model_cost(
    arch: Architecture,
    *,
    batch_size: int,
    sequence_length: int,
    vocab_size: int,
    num_outputs: int,
    causal: bool,
    head: Literal["token", "pooled"],
    max_length: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> ModelCost:
    """Costs of ``nas.models.build_model`` of the same arguments on a (B, N) batch of tokens.

    max_length: the longest sequence that the weights are made for, by default ``sequence_length``.
    precision: of products, in what is held in memory; weights are of fp32 in any case.
    """
    B, N, D = batch_size, sequence_length, arch.width
    longest = N if max_length is None else max_length
    half = precision == "bf16"
    shape = Shape(B, N, D, causal, arch.position, half)
    specs = [(la.attention.at(i), la.feedforward, la.heads) for i, la in enumerate(arch.layers)]
    layers = [layer_cost(*spec, shape) for spec in specs]
    built = layers
    if longest != N:
        built = [layer_cost(*spec, shape._replace(length=longest)) for spec in specs]
    slot = HaltingSlot(D, arch.depth, arch.repeats, arch.norm, num_outputs, head == "pooled")
    halting = _halting(arch.halting, B, N, slot)
    fewest, most = arch.halting.layers(slot)

    norm = norm_parameters(arch.norm, D)
    apart = sum(c.parameters + 2 * norm for c in built)
    inner = apart + norm + halting.parameters
    inner -= _counted_again([spec for spec, _, _ in specs], longest, D)
    tables = D * (vocab_size + (longest if arch.position == "learned" else 0) + num_outputs)
    answers = B * (N if head == "token" else 1)
    head_flops = 2 * answers * D * num_outputs
    runs = _run(layers, most)
    training_flops = sum(c.training_flops for c in runs) + _again(arch, runs)

    weights = FLOAT_BYTES * (inner + tables)
    logits = FLOAT_BYTES * answers * num_outputs
    work = Work(arch, layers, halting, B * N, logits, weights, half)
    state = None
    if causal and head == "token":
        state = arch.repeats * sum(state_bytes(*spec, shape) for spec in specs)
    return ModelCost(
        parameters=inner + tables,
        non_embedding_parameters=inner,
        active_parameters=inner + tables - sum(c.idle for c in built),
        unshared_parameters=arch.repeats * apart,
        flops=sum(c.flops for c in runs) + halting.flops + head_flops,
        flops_low=sum(c.flops_low for c in _run(layers, fewest))
        + halting.flops_low
        + (0 if arch.halting.exits else head_flops),
        training_flops=training_flops + halting.training_flops + 3 * head_flops,
        peak_memory_mb=answering_bytes(work) / MEGABYTE,
        training_memory_mb=training_bytes(work) / MEGABYTE,
        decoding_memory_mb=None if state is None else (weights + state) / MEGABYTE,
    )


def _again(arch: Architecture, runs: list[LayerCost]) -> int:
    """FLOPs of computing layers again for the sake of the backward pass."""
    if arch.residual.rebuilds:
        return sum(c.again_flops for c in runs)
    if arch.checkpointing:
        return sum(c.again_flops - c.last_flops for c in runs)
    return 0


def _run(layers: list[LayerCost], runs: int) -> list[LayerCost]:
    """The first runs of the cycle."""
    cycles, more = divmod(runs, len(layers))
    return layers * cycles + layers[:more]


def _counted_again(specs: list[AttentionSpec], length: int, width: int) -> int:
    """Parameters that layers share, for every layer after the first that has them."""
    again = 0
    seen: set[str] = set()
    for spec in specs:
        for name, count in spec.shared_parameters(length, width).items():
            again += count if name in seen else 0
            seen.add(name)
    return again
