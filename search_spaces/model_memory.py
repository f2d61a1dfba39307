"""What a whole model holds in memory as it answers and as it is trained, from what its layers do.

Letters: B batch, N sequence, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from search_spaces.architecture import Architecture
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.layer_cost import LayerCost
from search_spaces.norms import norm_statistics


class Work(NamedTuple):
    """A model on a batch: its distinct layers, its tokens, bytes of its logits and of its weights.

    half: under bf16 autocast.
    """

    arch: Architecture
    layers: Sequence[LayerCost]
    halting: Cost
    tokens: int
    logits: int
    weights: int
    half: bool

    @property
    def stream(self) -> int:
        """Bytes of (B, N, D)."""
        return FLOAT_BYTES * self.tokens * self.arch.width

    @property
    def statistics(self) -> int:
        """Bytes that a norm keeps beside its input."""
        return FLOAT_BYTES * self.tokens * norm_statistics(self.arch.norm)

    @property
    def runs(self) -> int:
        """How many layers are run."""
        return len(self.layers) * self.arch.repeats

    @property
    def memories(self) -> int:
        """Bytes that the next segment is given."""
        return self.arch.repeats * sum(c.memory_bytes for c in self.layers)

    @property
    def copies(self) -> int:
        """Bytes of the weights' copies in half precision."""
        return self.weights // 2 if self.half else 0


def answering_bytes(work: Work) -> int:
    """Most bytes alive while layers run, or as the model answers, weights included.

    Callers hold the embeddings and a layer's input; where cycles are counted, the input of the
    cycle as well; where there are exits, their answers. Memories for the next segment pile up.
    """
    arch, stream, logits = work.arch, work.stream, work.logits
    exits = arch.halting.exits
    cycles = arch.halting.adaptive and not exits
    held = 2 * stream + work.halting.live_bytes if cycles else stream
    inputs = 2 * stream if arch.residual.rebuilds else stream
    again = arch.repeats > 1 and not cycles
    memories = work.memories - sum(c.memory_bytes for c in work.layers)
    most = 0
    for i, c in enumerate(work.layers):
        memories += c.memory_bytes
        before = inputs + (work.halting.live_bytes if exits else 0) if i or again else 0
        most = max(most, held + c.live_bytes + before + memories)
    answering = 2 * stream + logits
    if exits:  # beside the embeddings, and the answers so far
        answering = 2 * stream + max(stream + 2 * logits, 3 * logits)
    return work.weights + work.copies + max(most, answering + memories)


def training_bytes(work: Work) -> int:
    """Most bytes alive in a step of training by AdamW, weights and its state included.

    That is at the end of the forward pass, with the gradients of the step before; at the beginning
    of the backward pass; or in that of a layer, when the weights from there on have gradients.
    """
    logits = work.logits
    given = logits // 2 if work.half else logits  # those that callers hold
    # the logits' softmax, and as the backward pass begins two gradients; the last norm
    normed = work.stream // 2 if work.half else work.stream
    end = given + logits + work.stream + normed + work.statistics + work.copies
    begun = _kept(work) + end + work.halting.saved_bytes + max(work.weights, 2 * logits)
    held = given * (work.runs if work.arch.halting.exits else 1)
    if work.arch.residual.rebuilds:
        back = work.weights + max(_rebuilding(work))
    else:
        back = max(_going_back(work))
    return 3 * work.weights + work.memories + max(begun, held + back)


def _kept(work: Work) -> int:
    """Bytes that the layers keep for the backward pass until it begins."""
    repeats, layers = work.arch.repeats, work.layers
    choices = repeats * sum(c.choice_bytes for c in layers)
    if work.arch.residual.rebuilds:
        return choices + 2 * work.stream
    if work.arch.checkpointing:
        return choices + work.runs * work.stream
    norms = 2 * work.statistics
    return repeats * sum(c.saved_bytes + norms for c in layers)


def _going_back(work: Work) -> Iterator[int]:
    """Bytes in the backward pass of each layer of the last cycle, where most is still kept.

    With the gradients of weights, without the logits and memories that callers hold.
    """
    repeats, layers, norms = work.arch.repeats, work.layers, 2 * work.statistics
    first = work.runs - len(layers)
    if work.arch.checkpointing:
        whole = work.stream * first + (repeats - 1) * sum(c.choice_bytes for c in layers)
        choices = accumulate(c.choice_bytes for c in layers)
        kept = [whole + work.stream * i + chosen for i, chosen in enumerate(choices)]
    else:
        whole = (repeats - 1) * sum(c.saved_bytes + norms for c in layers)
        kept = list(accumulate((c.saved_bytes + norms for c in layers[:-1]), initial=whole))
    # weights of layers before have no gradients yet, unless a later cycle has given them some
    without = list(accumulate((c.parameters for c in layers[:-1]), initial=0))
    for i, c in enumerate(layers):
        weights = work.weights + work.copies
        if repeats == 1:
            weights -= FLOAT_BYTES * without[i]
        yield weights + kept[i] + c.backward_bytes + norms + _halting(work, first + i)


def _halting(work: Work, run: int) -> int:
    """Bytes that halting keeps of the runs before one, with gradients of what it gave."""
    arch = work.arch
    if arch.halting.exits:  # of an exit's logits and softmax a gradient is left
        return run * (work.halting.saved_bytes // (work.runs - 1) - work.logits)
    if not arch.halting.adaptive:
        return 0
    # the gradients of the mean state, and of the state that a halted position keeps
    return run // arch.depth * (work.halting.saved_bytes // arch.repeats) + 2 * work.stream


def _rebuilding(work: Work) -> Iterator[int]:
    """Bytes while blocks are rebuilt, from the last one on, without weights and logits.

    The last streams and the first gradient of both stay to the end; beside a block and what it
    gives, there are the streams rebuilt so far and their gradients.
    """
    stream, last = work.stream, work.layers[-1]
    choices = work.arch.repeats * sum(c.choice_bytes for c in work.layers) + work.statistics
    yield choices + 5 * stream + last.feed_bytes
    yield choices + 7 * stream + last.mix_bytes
    for c in work.layers if work.arch.repeats > 1 else work.layers[:-1]:
        yield choices + 8 * stream + max(c.mix_bytes, c.feed_bytes)
