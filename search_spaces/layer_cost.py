"""What a layer costs, from the costs of its two blocks and of what joins them.

Letters: B batch, N sequence, D width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from search_spaces.attention.base import AttentionSpec, Position
from search_spaces.cost import FLOAT_BYTES
from search_spaces.feedforward.base import FeedForwardSpec


class Shape(NamedTuple):
    """What layers are priced for.

    half: products are of bf16 copies of weights and inputs, as under autocast.
    """

    batch: int
    length: int
    width: int
    causal: bool
    position: Position
    half: bool = False


class LayerCost(NamedTuple):
    """Both blocks of a layer, and what joins them.

    mix_bytes, feed_bytes: most bytes alive in the backward pass of either block, beside its input
    and the gradient of its output.  backward_bytes: in that of the whole layer, both included.
    idle: parameters of experts that a token does not meet.  Others are those of ``Cost``, norms
    left out of the parameters.
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
    backward_bytes: int
    choice_bytes: int
    memory_bytes: int
    idle: int


@lru_cache(maxsize=65536)
def layer_cost(
    attention: AttentionSpec, feedforward: FeedForwardSpec, heads: int, shape: Shape
) -> LayerCost:
    """Of a layer in a slot of that shape."""
    B, N, D, causal, position, half = shape
    a = attention.placed_cost(B, N, D, heads, causal, position)
    f = feedforward.cost(B, N, D, causal)
    stream = FLOAT_BYTES * B * N * D
    # a norm's output, too, is kept for products: in half precision as two copies, one for each
    mix, feed = (2 if half and not attention.widens else 1), (2 if half else 1)
    a_saved, a_back = (size // mix + stream for size in (a.saved_bytes, a.backward))
    f_saved, f_back = (size // feed + stream for size in (f.saved_bytes, f.backward))
    # beside the normed input, and for the second block beside the sum so far as well
    live = max(a.live // mix + stream, f.live // feed + 2 * stream)
    return LayerCost(
        a.parameters + f.parameters + attention.position_parameters(position, heads),
        a.flops + f.flops,
        a.flops_low + f.flops_low,
        a.training_flops + f.training_flops,
        a.again_flops + f.again_flops,
        f.last_flops,
        live + (stream // 2 if half else 0),
        # and each norm keeps its input
        a_saved + f_saved + 2 * stream,
        a_back,
        f_back,
        # the second block's beside what the first keeps
        2 * stream + max(a_back, a_saved + stream + f_back),
        a.choice_bytes + f.choice_bytes,
        a.memory_bytes,
        f.parameters - feedforward.active_parameters(D, causal),
    )


@lru_cache(maxsize=65536)
def state_bytes(
    attention: AttentionSpec, feedforward: FeedForwardSpec, heads: int, shape: Shape
) -> int:
    """What decoding keeps of one sequence."""
    kept = attention.state_bytes(shape.length, shape.width, heads, shape.position)
    return kept + feedforward.state_bytes(shape.width)
