"""What latency is made of: analytic terms of each part of a model, in a pass and in one step.

A part is the block of a mechanism, or the frame: what surrounds the layers, halting included.
Latency is linear in the terms of all parts; a device's table (``nas.latency.table``) holds the
coefficients.

Letters: B batch, N sequence, H heads, D width, E head width, V outputs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from nas.catalogue.tasks import TaskShape
from search_spaces.architecture import Architecture
from search_spaces.attention.base import BIASES, AttentionSpec, Position
from search_spaces.feedforward.base import FeedForwardSpec

Terms: TypeAlias = tuple[float, ...]
Mode: TypeAlias = Literal["pass", "step"]


class Work(NamedTuple):
    """What a model is fed: (B, N) tokens, as a slot of that kind.

    answers: at how many positions the head answers.  mode: one pass over all tokens, or one step
    of a single sequence after N tokens.
    """

    batch: int
    length: int
    causal: bool
    answers: int
    outputs: int
    mode: Mode

    @property
    def tokens(self) -> int:
        """Tokens that layers are run on."""
        return 1 if self.mode == "step" else self.batch * self.length


def work_of(shape: TaskShape, batch_size: int, mode: Mode) -> Work:
    """The work of a task's batches; a step is of one sequence whatever the batch."""
    batch = 1 if mode == "step" else batch_size
    answers = batch * (shape.sequence_length if mode == "pass" and shape.head == "token" else 1)
    return Work(batch, shape.sequence_length, shape.causal, answers, shape.num_outputs, mode)


class Part(NamedTuple):
    """A part of a model: what it is called, what it takes for one run, and how often it is run."""

    name: str
    terms: Terms
    runs: int


def names(arch: Architecture) -> list[str]:
    """What its parts are called: both blocks of each layer in turn, the frame last."""
    found = []
    for layer in arch.layers:
        # biases on the scores make another kernel of a mechanism that takes them
        biased = arch.position in BIASES and arch.position in layer.attention.positions
        found.append(f"attention {layer.attention.type}{' biased' if biased else ''}")
        found.append(f"feedforward {layer.feedforward.type}")
    return [*found, f"frame {arch.halting.type}"]


def parts(arch: Architecture, work: Work) -> list[Part]:
    """Its parts in the order of ``names``; each block has its norm."""
    rms = arch.norm == "rms_norm"
    terms: list[Terms] = []
    for i, layer in enumerate(arch.layers):
        spec, heads = layer.attention.at(i), layer.heads
        terms.append(attention_terms(spec, arch.width, heads, arch.position, rms, work))
        terms.append(feedforward_terms(layer.feedforward, arch.width, rms, work))
    runs = [arch.repeats] * len(terms) + [1]
    return list(map(Part, names(arch), [*terms, frame_terms(arch, work)], runs))


@lru_cache(maxsize=65536)
def attention_terms(
    spec: AttentionSpec, width: int, heads: int, position: Position, rms: bool, work: Work
) -> Terms:
    """Of one run of an attention block."""
    tokens, stream = work.tokens, work.tokens * width / 1e6
    turned = position == "rotary" and position in spec.positions
    own = (1.0, tokens * width * width / 1e9, stream, turned * 1.0, turned * stream, rms * stream)
    if work.mode == "pass":
        return own + _mixing(spec, width, heads, position, work)
    kept = spec.state_bytes(work.length, width, heads, position) / 1e6
    again = spec.decoding == "recompute"
    mixed = _mixing(spec, width, heads, position, work)
    return (*own, kept, kept * heads / width, *(again * term for term in mixed))


def _mixing(spec: AttentionSpec, width: int, heads: int, position: Position, work: Work) -> Terms:
    """Of mixing a whole sequence: products beyond projections, scores, bytes, rows of heads."""
    tokens = work.batch * work.length
    cost = spec.placed_cost(work.batch, work.length, width, heads, work.causal, position)
    products = max(0, cost.flops - 6 * tokens * width * width) / 1e9
    grouped = (spec.heads_per_key > 1) * tokens * width / 1e6
    scores = products * heads / width
    return products, scores, cost.live_bytes / 1e6, tokens * heads / 1e6, grouped, cost.flops / 1e9


@lru_cache(maxsize=65536)
def feedforward_terms(spec: FeedForwardSpec, width: int, rms: bool, work: Work) -> Terms:
    """Of one run of a feed-forward block."""
    length = 1 if work.mode == "step" else work.length
    cost = spec.cost(work.batch, length, width, work.causal)
    stream = work.tokens * width / 1e6
    kept = spec.state_bytes(width) / 1e6 if work.mode == "step" else 0.0
    return (
        1.0,
        cost.flops_low / 1e9,
        cost.live_bytes / 1e6,
        stream,
        rms * stream,
        kept,
        cost.parameters / 1e6,
    )


def frame_terms(arch: Architecture, work: Work) -> Terms:
    """Of all that is neither of the blocks: embedding, residuals, halting, last norm and heads."""
    halting = arch.halting
    runs = arch.repeats * arch.depth
    stream, logits = work.tokens * arch.width / 1e6, work.answers * work.outputs / 1e6
    heads = runs if halting.exits else 1  # a classifier at each exit, the last included
    cycles = 0 if halting.exits else arch.repeats
    return (
        1.0,
        stream,
        heads * logits,
        heads * logits * arch.width / 1e3,
        runs,
        runs * stream,
        cycles,
        cycles * stream,
        arch.residual.rebuilds * runs * stream,
        (arch.norm == "rms_norm") * heads * stream,
        (arch.position not in ("none", "rotary")) * stream,
    )
