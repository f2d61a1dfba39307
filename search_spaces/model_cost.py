"""What a whole model costs, from the costs of its parts.

Letters: B batch, N sequence, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from search_spaces.architecture import Architecture
from search_spaces.attention.base import AttentionSpec
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.halting.base import HaltingSlot, HaltingSpec
from search_spaces.norms import norm_parameters, norm_statistics

MEGABYTE = 1e6


@dataclass(frozen=True)
class ModelCost:
    """Costs of one forward pass of a batch; memory in MB of 10⁶ bytes (see the metrics' texts).

    active_parameters: without those of experts that a token does not meet.
    """

    parameters: int
    non_embedding_parameters: int
    active_parameters: int
    flops: int
    flops_low: int
    peak_memory_mb: float
    training_memory_mb: float

    def metrics(self) -> dict[str, float]:
        """By the names of ``nas.catalogue.metrics``."""
        return {n: float(v) for n, v in asdict(self).items() if n != "active_parameters"}


class _Blocks(NamedTuple):
    """Both blocks of a layer. The fields of their sum are those of ``Cost``, norms left out.

    mix_bytes, feed_bytes: what the backward pass needs of either block where it computes them one
    by one.  idle: parameters of experts that a token does not meet.
    """

    parameters: int
    flops: int
    flops_low: int
    live_bytes: int
    saved_bytes: int
    mix_bytes: int
    feed_bytes: int
    idle: int


@lru_cache(maxsize=65536)
def _blocks(
    attention: AttentionSpec,
    feedforward: FeedForwardSpec,
    heads: int,
    batch: int,
    length: int,
    width: int,
    causal: bool,
) -> _Blocks:
    a = attention.cost(batch, length, width, heads, causal)
    f = feedforward.cost(batch, length, width, causal)
    stream = FLOAT_BYTES * batch * length * width
    return _Blocks(
        a.parameters + f.parameters,
        a.flops + f.flops,
        a.flops_low + f.flops_low,
        # beside the normed input, and for the second block beside the sum so far as well
        max(a.live_bytes + stream, f.live_bytes + 2 * stream),
        # and each norm keeps its input and, through the block that follows, its output
        a.saved_bytes + f.saved_bytes + 4 * stream,
        # the normed input, and what the block adds
        a.saved_bytes + 2 * stream,
        f.saved_bytes + 2 * stream,
        f.parameters - feedforward.active_parameters(width, causal),
    )


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
    specs = [(la.attention.at(i), la.feedforward, la.heads) for i, la in enumerate(arch.layers)]
    layers = [_blocks(*spec, B, N, D, causal) for spec in specs]
    built = layers if longest == N else [_blocks(*spec, B, longest, D, causal) for spec in specs]
    slot = HaltingSlot(D, arch.depth, arch.repeats, arch.norm, num_outputs, head == "pooled")
    halting = _halting(arch.halting, B, N, slot)
    fewest, most = arch.halting.layers(slot)

    norm = norm_parameters(arch.norm, D)
    inner = sum(c.parameters + 2 * norm for c in built) + norm + halting.parameters
    inner += sum(spec.position_parameters(arch.position, heads) for spec, _, heads in specs)
    inner -= _counted_again([spec for spec, _, _ in specs], longest, D)
    tables = D * (vocab_size + (longest if arch.position == "learned" else 0) + num_outputs)
    answers = B * (N if head == "token" else 1)
    head_flops = 2 * answers * D * num_outputs

    weights = FLOAT_BYTES * (inner + tables)
    stream = FLOAT_BYTES * B * N * D
    logits = FLOAT_BYTES * answers * num_outputs
    live = _live(arch, layers, halting, stream)
    answering = 2 * stream + logits
    if arch.halting.exits:  # beside the embeddings, and the answers so far
        answering = 2 * stream + max(stream + 2 * logits, 3 * logits)
    return ModelCost(
        parameters=inner + tables,
        non_embedding_parameters=inner,
        active_parameters=inner + tables - sum(c.idle for c in built),
        flops=sum(c.flops for c in _run(layers, most)) + halting.flops + head_flops,
        flops_low=sum(c.flops_low for c in _run(layers, fewest))
        + halting.flops_low
        + (0 if arch.halting.exits else head_flops),
        peak_memory_mb=(weights + max(live, answering)) / MEGABYTE,
        training_memory_mb=(4 * weights + _saved(arch, layers, halting, B * N, logits)) / MEGABYTE,
    )


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


def _live(arch: Architecture, layers: list[_Blocks], halting: Cost, stream: int) -> int:
    """Most bytes alive while layers run: callers hold the embeddings and a layer's input; where
    cycles are counted, the input of the cycle as well; where there are exits, their answers."""
    exits = arch.halting.exits
    cycles = arch.halting.adaptive and not exits
    held = 2 * stream + halting.live_bytes if cycles else stream
    inputs = 2 * stream if arch.residual.rebuilds else stream
    again = arch.repeats > 1 and not cycles
    return max(
        held + c.live_bytes + (inputs + (halting.live_bytes if exits else 0) if i or again else 0)
        for i, c in enumerate(layers)
    )


def _saved(
    arch: Architecture, layers: list[_Blocks], halting: Cost, tokens: int, logits: int
) -> int:
    """Most bytes that the backward pass needs, from its beginning on."""
    stream = FLOAT_BYTES * tokens * arch.width
    statistics = FLOAT_BYTES * tokens * norm_statistics(arch.norm)
    # the last norm; the logits, their softmax and, as the backward pass begins, two gradients
    end = 2 * stream + statistics + 4 * logits
    if arch.residual.rebuilds:
        return 2 * stream + max(end, _rebuilding(arch, layers, stream) + statistics)
    if arch.checkpointing:
        runs = _run(layers, arch.depth * arch.repeats)
        whole = halting.saved_bytes + len(runs) * stream + end
        # beside the inputs of the layers up to one: its gradient, all of it, and what halting keeps
        # up to there, where of an exit's logits and softmax a gradient is left
        gone = logits if arch.halting.exits else 0
        halted = halting.saved_bytes // len(runs) - gone
        moments = [
            (i + 2) * stream + c.saved_bytes + 2 * statistics + i * halted
            for i, c in enumerate(runs)
        ]
        return max(whole, *moments)
    kept = arch.repeats * sum(c.saved_bytes + 2 * statistics for c in layers)
    return kept + end + halting.saved_bytes


def _rebuilding(arch: Architecture, layers: list[_Blocks], stream: int) -> int:
    """Most bytes, beside the last streams, while blocks are rebuilt from the last one on."""
    last = layers[-1]
    # both streams have one gradient at first; then there are two, and what is rebuilt
    moments = [stream + last.feed_bytes, 3 * stream + last.mix_bytes]
    earlier = layers if arch.repeats > 1 else layers[:-1]
    moments += [4 * stream + max(c.mix_bytes, c.feed_bytes) for c in earlier]
    return max(moments)
