"""What an architecture costs before training: exact arithmetic and a device's latency table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from nas.catalogue.tasks import TaskShape
from search_spaces.architecture import Architecture, Layer
from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Position
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.model_cost import model_cost
from search_spaces.values import canonical_json

Fit: TypeAlias = tuple[float, float, float]
"""Milliseconds: a constant, per GFLOP, per MB of live activations."""


ANY = "any"
"""The fit over all mechanisms, for one that was never measured."""


class LatencyTable(BaseModel):
    """Milliseconds of each block on one device, at one batch size and length, with one thread.

    ``blocks`` holds what was measured; what was not is estimated by its mechanism's ``fits`` from
    FLOPs and live bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    batch_size: int
    sequence_length: int
    causal: bool
    alone: bool
    """Whether nothing else of ours ran meanwhile."""
    blocks: dict[str, float]
    fits: dict[str, Fit]

    def missing(self, arch: Architecture) -> bool:
        """Whether a block of this architecture was never measured."""
        keys = [frame_key(arch.width)]
        for i, layer in enumerate(arch.layers):
            spec = layer.attention.at(i)
            keys.append(attention_key(spec, arch.width, layer.heads, arch.position))
            keys.append(feedforward_key(layer.feedforward, arch.width))
        return any(key not in self.blocks for key in keys)

    def predict(self, arch: Architecture) -> float:
        """Milliseconds of one evaluation forward pass of the batch, all layers executed."""
        layers = sum(
            self._attention(layer.attention.at(i), layer.heads, arch)
            + self._feedforward(layer, arch.width)
            for i, layer in enumerate(arch.layers)
        )
        runs = arch.repeats * arch.depth
        heads = runs if arch.halting.exits else 1  # a classifier at each exit, the last included
        return heads * self._frame(arch.width) + arch.repeats * layers

    def _attention(self, spec: AttentionSpec, heads: int, arch: Architecture) -> float:
        key = attention_key(spec, arch.width, heads, arch.position)
        if key in self.blocks:
            return self.blocks[key]
        work = attention_work(
            spec, arch.width, heads, self.batch_size, self.sequence_length, self.causal
        )
        return self._estimate(spec.type, work)

    def _feedforward(self, layer: Layer, width: int) -> float:
        key = feedforward_key(layer.feedforward, width)
        if key in self.blocks:
            return self.blocks[key]
        work = feedforward_work(
            layer.feedforward, width, self.batch_size, self.sequence_length, self.causal
        )
        return self._estimate(layer.feedforward.type, work)

    def _frame(self, width: int) -> float:
        key = frame_key(width)
        if key in self.blocks:
            return self.blocks[key]
        work = frame_work(width, self.batch_size, self.sequence_length)
        return self._estimate("frame", work)

    def _estimate(self, mechanism: str, work: tuple[float, float]) -> float:
        return apply(self.fits.get(mechanism, self.fits[ANY]), work)

    def merged(self, newer: LatencyTable) -> LatencyTable:
        """This table with what another of the same device and shape has measured since."""
        update = {
            "blocks": {**self.blocks, **newer.blocks},
            "fits": {**self.fits, **newer.fits},
            "alone": self.alone and newer.alone,
        }
        return self.model_copy(update=update)


@lru_cache(maxsize=65536)
def attention_key(spec: AttentionSpec, width: int, heads: int, position: Position) -> str:
    """The name of a measured attention block; positions added to embeddings cost it nothing."""
    within = "added" if position in ADDED_POSITIONS else position
    return f"attention {canonical_json(spec)} width={width} heads={heads} position={within}"


@lru_cache(maxsize=65536)
def feedforward_key(spec: FeedForwardSpec, width: int) -> str:
    """The name of a measured feed-forward block."""
    return f"feedforward {canonical_json(spec)} width={width}"


def frame_key(width: int) -> str:
    """The name of what surrounds the layers: embedding, last norm, output layer."""
    return f"frame width={width}"


def attention_work(
    spec: AttentionSpec, width: int, heads: int, batch: int, length: int, causal: bool
) -> tuple[float, float]:
    """GFLOPs and MB of one attention block."""
    cost = spec.cost(batch, length, width, heads, causal)
    return cost.flops / 1e9, cost.live_bytes / 1e6


def feedforward_work(
    spec: FeedForwardSpec, width: int, batch: int, length: int, causal: bool
) -> tuple[float, float]:
    """GFLOPs and MB of one feed-forward block."""
    cost = spec.cost(batch, length, width, causal)
    return cost.flops / 1e9, cost.live_bytes / 1e6


def frame_work(width: int, batch: int, length: int) -> tuple[float, float]:
    """Terms that grow as embedding, norm and output layer do."""
    tokens = batch * length
    return tokens * width / 1e9, tokens * width * 4 / 1e6


def apply(fit: Fit, work: tuple[float, float]) -> float:
    """Milliseconds by a mechanism's fit."""
    return fit[0] + fit[1] * work[0] + fit[2] * work[1]


def known_costs(
    arch: Architecture, shape: TaskShape, batch_size: int, latency: LatencyTable | None = None
) -> dict[str, float]:
    """Every metric that is known before training, by name."""
    costs: dict[str, float] = model_cost(
        arch,
        batch_size=batch_size,
        sequence_length=shape.sequence_length,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
    ).metrics()
    if latency is not None:
        costs["latency_ms"] = latency.predict(arch)
    return costs


def latency_key(device: str, shape: TaskShape, batch_size: int) -> str:
    """Under which a table is kept: a table holds for one device and one shape of work."""
    return f"{device} {shape_key(shape, batch_size)}"


def shape_key(shape: TaskShape, batch_size: int) -> str:
    """How the key ends: the shape of the work alone."""
    sizes: Mapping[str, Any] = {
        "batch": batch_size,
        "length": shape.sequence_length,
        "vocab": shape.vocab_size,
        "outputs": shape.num_outputs,
        "causal": shape.causal,
        "head": shape.head,
    }
    return " ".join(f"{name}={value}" for name, value in sizes.items())
