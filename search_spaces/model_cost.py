"""What a whole model costs, from the costs of its parts.

Letters: B batch, N sequence, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from search_spaces.architecture import Architecture
from search_spaces.attention.base import AttentionSpec, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.halting.base import HaltingSlot, HaltingSpec
from search_spaces.norms import norm_parameters, norm_statistics

MEGABYTE = 1e6


@dataclass(frozen=True)
class ModelCost:
    """Costs of a batch; memory in MB of 10⁶ bytes of fp32 (see the metrics' texts).

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


class _Blocks(NamedTuple):
    """Both blocks of a layer, and what joins them.

    mix_bytes, feed_bytes: what the backward pass needs of either block where it computes them one
    by one.  idle: parameters of experts that a token does not meet.  Others are those of ``Cost``,
    norms left out of the parameters.
    """

    parameters: int
    flops: int
    flops_low: int
    training_flops: int
    again_flops: int
    last_flops: int
    live_bytes: int
    saved_bytes: int
    mix_bytes: int
    feed_bytes: int
    choice_bytes: int
    memory_bytes: int
    idle: int


class _Shape(NamedTuple):
    """What blocks are priced for."""

    batch: int
    length: int
    width: int
    causal: bool
    position: Position


@lru_cache(maxsize=65536)
def _blocks(
    attention: AttentionSpec, feedforward: FeedForwardSpec, heads: int, shape: _Shape
) -> _Blocks:
    B, N, D, causal, position = shape
    a = attention.placed_cost(B, N, D, heads, causal, position)
    f = feedforward.cost(B, N, D, causal)
    stream = FLOAT_BYTES * B * N * D
    return _Blocks(
        a.parameters + f.parameters + attention.position_parameters(position, heads),
        a.flops + f.flops,
        a.flops_low + f.flops_low,
        a.training_flops + f.training_flops,
        a.again_flops + f.again_flops,
        f.last_flops,
        # beside the normed input, and for the second block beside the sum so far as well
        max(a.live_bytes + stream, f.live_bytes + 2 * stream),
        # and each norm keeps its input and, through the block that follows, its output
        a.saved_bytes + f.saved_bytes + 4 * stream,
        # the normed input, and what the block adds
        a.saved_bytes + 2 * stream,
        f.saved_bytes + 2 * stream,
        a.choice_bytes + f.choice_bytes,
        a.memory_bytes,
        f.parameters - feedforward.active_parameters(D, causal),
    )


@lru_cache(maxsize=65536)
def _state_bytes(
    attention: AttentionSpec, feedforward: FeedForwardSpec, heads: int, shape: _Shape
) -> int:
    kept = attention.state_bytes(shape.length, shape.width, heads, shape.position)
    return kept + feedforward.state_bytes(shape.width)


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
) -> ModelCost:
    """Costs of ``nas.models.build_model`` of the same arguments on a (B, N) batch of tokens.

    max_length: the longest sequence that the weights are made for, by default ``sequence_length``.
    """
    B, N, D = batch_size, sequence_length, arch.width
    longest = N if max_length is None else max_length
    shape = _Shape(B, N, D, causal, arch.position)
    specs = [(la.attention.at(i), la.feedforward, la.heads) for i, la in enumerate(arch.layers)]
    layers = [_blocks(*spec, shape) for spec in specs]
    built = layers
    if longest != N:
        built = [_blocks(*spec, shape._replace(length=longest)) for spec in specs]
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
    live = _live(arch, layers, halting, B * N, logits)
    state = None
    if causal and head == "token":
        state = arch.repeats * sum(_state_bytes(*spec, shape) for spec in specs)
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
        peak_memory_mb=(weights + live) / MEGABYTE,
        training_memory_mb=(4 * weights + _saved(arch, layers, halting, B * N, logits)) / MEGABYTE,
        decoding_memory_mb=None if state is None else (weights + state) / MEGABYTE,
    )


def _again(arch: Architecture, runs: list[_Blocks]) -> int:
    """FLOPs of computing layers again for the sake of the backward pass."""
    if arch.residual.rebuilds:
        return sum(c.again_flops for c in runs)
    if arch.checkpointing:
        return sum(c.again_flops - c.last_flops for c in runs)
    return 0


def _run(layers: list[_Blocks], runs: int) -> list[_Blocks]:
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


def _live(
    arch: Architecture, layers: list[_Blocks], halting: Cost, tokens: int, logits: int
) -> int:
    """Most bytes alive while layers run, or as the model answers.

    Callers hold the embeddings and a layer's input; where cycles are counted, the input of the
    cycle as well; where there are exits, their answers. Memories for the next segment pile up.
    """
    stream = FLOAT_BYTES * tokens * arch.width
    exits = arch.halting.exits
    cycles = arch.halting.adaptive and not exits
    held = 2 * stream + halting.live_bytes if cycles else stream
    inputs = 2 * stream if arch.residual.rebuilds else stream
    again = arch.repeats > 1 and not cycles
    memories = (arch.repeats - 1) * sum(c.memory_bytes for c in layers)
    most = 0
    for i, c in enumerate(layers):
        memories += c.memory_bytes
        before = inputs + (halting.live_bytes if exits else 0) if i or again else 0
        most = max(most, held + c.live_bytes + before + memories)
    answering = 2 * stream + logits
    if exits:  # beside the embeddings, and the answers so far
        answering = 2 * stream + max(stream + 2 * logits, 3 * logits)
    return max(most, answering + memories)


def _saved(
    arch: Architecture, layers: list[_Blocks], halting: Cost, tokens: int, logits: int
) -> int:
    """Most bytes that the backward pass needs, from its beginning on; callers hold the logits."""
    stream = FLOAT_BYTES * tokens * arch.width
    statistics = FLOAT_BYTES * tokens * norm_statistics(arch.norm)
    # the last norm; the logits, their softmax and, as the backward pass begins, two gradients
    end = 2 * stream + statistics + 4 * logits
    memories = arch.repeats * sum(c.memory_bytes for c in layers)
    if arch.residual.rebuilds:
        choices = arch.repeats * sum(c.choice_bytes for c in layers)
        again = _rebuilding(arch, layers, stream) + statistics + logits
        return memories + 2 * stream + choices + max(end, again)
    if arch.checkpointing:
        runs = _run(layers, arch.depth * arch.repeats)
        # of an exit's logits and softmax a gradient is left, beside the logits that callers hold
        gone = logits if arch.halting.exits else 0
        held = memories + logits * (len(runs) if arch.halting.exits else 1)
        whole = halting.saved_bytes + len(runs) * stream + sum(c.choice_bytes for c in runs) + end
        again = _checkpointed(runs, halting, stream, statistics, gone)
        return max(memories + whole, held + again)
    kept = arch.repeats * sum(c.saved_bytes + 2 * statistics for c in layers)
    return memories + kept + end + halting.saved_bytes


def _checkpointed(
    runs: list[_Blocks], halting: Cost, stream: int, statistics: int, gone: int
) -> int:
    """Most bytes, beside the logits, while layers are computed again from the last one on.

    gone: what the gradient frees of what halting keeps of a layer.
    """
    halted = halting.saved_bytes // len(runs) - gone
    choices = most = 0
    for i, c in enumerate(runs):
        choices += c.choice_bytes
        # beside the inputs of the layers up to one: its gradient, all of it, and what halting keeps
        # up to there
        kept = (i + 2) * stream + c.saved_bytes + 2 * statistics + i * halted
        most = max(most, kept + choices)
    return most


def _rebuilding(arch: Architecture, layers: list[_Blocks], stream: int) -> int:
    """Most bytes, beside the last streams, while blocks are rebuilt from the last one on."""
    last = layers[-1]
    # both streams have one gradient at first; then there are two, and what is rebuilt
    moments = [stream + last.feed_bytes, 3 * stream + last.mix_bytes]
    earlier = layers if arch.repeats > 1 else layers[:-1]
    moments += [4 * stream + max(c.mix_bytes, c.feed_bytes) for c in earlier]
    return max(moments)
