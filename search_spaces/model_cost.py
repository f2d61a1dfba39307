"""What a whole model costs, from the costs of its parts.

Letters: B batch, N sequence, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

from search_spaces.architecture import Architecture, Layer
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.halting.base import HaltingSpec

MEGABYTE = 1e6


@dataclass(frozen=True)
class ModelCost:
    """Costs of one forward pass of a batch; memory in MB of 10⁶ bytes (see the metrics' texts)."""

    parameters: int
    non_embedding_parameters: int
    flops: int
    flops_low: int
    peak_memory_mb: float
    training_memory_mb: float

    def metrics(self) -> dict[str, float]:
        """By the names of ``nas.catalogue.metrics``."""
        return {name: float(value) for name, value in asdict(self).items()}


@lru_cache(maxsize=65536)
def _layer(layer: Layer, batch: int, length: int, width: int, causal: bool) -> Cost:
    """Both blocks of a pre-norm layer between its input and its output, norms left out."""
    a = layer.attention.cost(batch, length, width, layer.heads, causal)
    f = layer.feedforward.cost(batch, length, width, causal)
    stream = FLOAT_BYTES * batch * length * width
    return Cost(
        a.parameters + f.parameters,
        a.flops + f.flops,
        a.flops_low + f.flops_low,
        # beside the normed input, and for the second block beside the sum so far as well
        max(a.live_bytes + stream, f.live_bytes + 2 * stream),
        # and each norm keeps its input and, through the block that follows, its output
        a.saved_bytes + f.saved_bytes + 4 * stream,
    )


@lru_cache(maxsize=4096)
def _halting(spec: HaltingSpec, batch: int, length: int, width: int, repeats: int) -> Cost:
    return spec.cost(batch, length, width, repeats)


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
) -> ModelCost:
    """Costs of ``nas.models.build_model`` of the same arguments on a (B, N) batch of tokens.

    max_length: the longest sequence that the weights are made for, by default ``sequence_length``.
    """
    B, N, D = batch_size, sequence_length, arch.width
    longest = N if max_length is None else max_length
    layers = [_layer(layer, B, N, D, causal) for layer in arch.layers]
    built = layers if longest == N else [_layer(a, B, longest, D, causal) for a in arch.layers]
    halting = _halting(arch.halting, B, N, D, arch.repeats)
    fewest, most = arch.halting.cycles(arch.repeats)

    layer_norm = arch.norm == "layer_norm"
    norm = 2 * D if layer_norm else D
    inner = sum(c.parameters + 2 * norm for c in built) + norm + halting.parameters
    tables = D * (vocab_size + (longest if arch.position == "learned" else 0) + num_outputs)
    answers = B * (N if head == "token" else 1)
    head_flops = 2 * answers * D * num_outputs

    weights = FLOAT_BYTES * (inner + tables)
    stream = FLOAT_BYTES * B * N * D
    logits = FLOAT_BYTES * answers * num_outputs
    # callers hold the embeddings, the input of the cycle and the input of the layer
    held = stream * (2 if arch.repeats > 1 else 1)
    inputs = [held + (stream if i else 0) for i in range(arch.depth)]
    live = halting.live_bytes + max(x + c.live_bytes for x, c in zip(inputs, layers, strict=True))
    statistics = FLOAT_BYTES * B * N * (2 if layer_norm else 1)
    saved = most * sum(c.saved_bytes + 2 * statistics for c in layers) + halting.saved_bytes
    # the last norm; the logits, their softmax and, as the backward pass begins, two gradients
    saved += 2 * stream + statistics + 4 * logits
    return ModelCost(
        parameters=inner + tables,
        non_embedding_parameters=inner,
        flops=most * sum(c.flops for c in layers) + halting.flops + head_flops,
        flops_low=fewest * sum(c.flops_low for c in layers) + halting.flops_low + head_flops,
        peak_memory_mb=(weights + max(live, 2 * stream + logits)) / MEGABYTE,
        training_memory_mb=(4 * weights + saved) / MEGABYTE,
    )
