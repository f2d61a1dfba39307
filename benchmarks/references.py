"""Public implementations that stand beside ours: the extra ``references`` of this project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks import reference_layers as layers
from nas.models.attention.base import Attention

BOTH = (False, True)
SHORTEST, LONGEST = 256, 8192  # and a multiple of the former: they cut N into blocks


@dataclass(frozen=True)
class Reference:
    """A public implementation of a mechanism.

    build: from a module of ours to one (B, N, D) → (B, N, D) with its weights, N its max_length.
    slots: whether it is causal, for each slot that it stands in.
    shortest: N below which it has not the blocks that it needs.
    longest, longest_causal: N beyond which an encoder or a causal layer takes gigabytes.
    differs: how its definition differs from ours, if it does: its outputs are then not comparable.
    """

    name: str
    build: Callable[[Attention[Any]], nn.Module]
    slots: tuple[bool, ...] = (False,)
    shortest: int = SHORTEST
    longest: int = LONGEST
    longest_causal: int = LONGEST
    differs: str = ""

    def longest_in(self, causal: bool) -> int:
        """The largest N that is measured."""
        return self.longest_causal if causal else self.longest


SDPA = Reference("torch SDPA", layers.sdpa, BOTH)
LOCAL = Reference("local-attention", layers.local_attention, BOTH)

REFERENCES: dict[str, tuple[Reference, ...]] = {
    "full": (
        SDPA,
        Reference("transformers RoBERTa", layers.roberta, longest=4096),
    ),
    "longformer": (
        Reference("transformers Longformer", layers.longformer),
        LOCAL,
    ),
    "cascade": (LOCAL,),
    "linformer": (Reference("linformer", layers.linformer),),
    "nystromformer": (
        Reference("nystrom-attention", layers.nystrom_attention),
        Reference("transformers Nyströmformer", layers.nystromformer),
    ),
    "performer": (
        Reference(
            "performer-pytorch",
            layers.performer,
            BOTH,
            # its causal form without CUDA keeps N·M·E sums
            longest_causal=2048,
            differs="1e-4 is added to each feature",
        ),
    ),
    "linear": (
        Reference(
            "linear-attention-transformer",
            layers.linear_attention,
            BOTH,
            differs="features are softmaxes, and causal buckets do not see themselves",
        ),
    ),
    "reformer": (
        Reference(
            "reformer-pytorch",
            layers.lsh,
            BOTH,
            differs="scores are divided by √E, and chunks see other buckets",
        ),
    ),
    "sinkhorn": (
        Reference(
            "sinkhorn-transformer",
            layers.sinkhorn,
            BOTH,
            differs="sorts with noise, by one block when causal, and takes sorted keys as values",
        ),
    ),
    "bigbird": (Reference("transformers BigBird", layers.bigbird, shortest=512),),
    "transformer_xl": (
        Reference(
            "x-transformers",
            layers.x_transformers,
            BOTH,
            differs="no relative positions",
        ),
    ),
    "blockbert": (
        Reference(
            "local-attention",
            layers.blocks_alone,
            differs="all heads have the identity for a permutation",
        ),
    ),
}
