"""What every residual module offers: one layer, two blocks joined to the stream.

Shapes: B batch, N sequence, D width, M positions of a memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

from nas.models.attention.base import Attention, Shared
from nas.models.feedforward.base import FeedForward
from nas.models.mechanism import Mechanism
from nas.models.norms import build_norm
from nas.models.positions import Rotation
from search_spaces.norms import Norm
from search_spaces.residual.base import ResidualSpec


class Context(NamedTuple):
    """What a layer sees beside the stream: rotary angles, the memory (B, M, D) of the segments
    before, and twice the mask (B, N), True = valid.

    mask: None where all are valid.  key_mask: None too where no query could see a padded key.
    """

    mask: Tensor | None = None
    key_mask: Tensor | None = None
    rotation: Rotation | None = None
    memory: Tensor | None = None


class Ran(NamedTuple):
    """What a layer gives: the stream, its auxiliary loss () and its memory after the segment."""

    stream: Any
    loss: Tensor | None
    memory: Tensor | None


class ResidualLayer(Mechanism):
    """One layer. Its stream is what ``enter`` makes of the embeddings (B, N, D)."""

    def __init__(
        self,
        spec: ResidualSpec,
        *,
        attention: Attention[Any],
        feedforward: FeedForward[Any],
        norm: Norm,
        d_model: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.attention_norm = build_norm(norm, d_model)
        self.attention = attention
        self.feedforward_norm = build_norm(norm, d_model)
        self.feedforward = feedforward
        self.dropout = dropout

    @staticmethod
    def enter(x: Tensor) -> Any:
        """The stream that begins with (B, N, D)."""
        return x

    @staticmethod
    def leave(stream: Any) -> Tensor:
        """What the stream has come to, (B, N, D)."""
        x: Tensor = stream
        return x

    @abstractmethod
    def forward(self, stream: Any, context: Context) -> Ran:
        """The stream after this layer."""

    @classmethod
    def through(
        cls,
        layers: Sequence[ResidualLayer],
        stream: Any,
        contexts: Sequence[Context],
        shared: Shared,
    ) -> tuple[Any, list[Ran]]:
        """The stream after all of these layers, and what else each of them gave (without it).

        shared: the parameters of the model that layers use but do not hold.
        """
        rest: list[Ran] = []
        for layer, context in zip(layers, contexts, strict=True):
            stream, loss, memory = layer(stream, context)
            rest.append(Ran(None, loss, memory))
        return stream, rest

    def init_state(self, batch_size: int) -> tuple[Any, Any]:
        """The states of both blocks before the first token."""
        return self.attention.init_state(batch_size), self.feedforward.init_state(batch_size)

    @abstractmethod
    def extend(self, stream: Any, state: Any, rotation: Rotation | None = None) -> tuple[Any, Any]:
        """The same for N more tokens after a state, and the state after them."""

    @abstractmethod
    def absorb(self, stream: Any, state: Any, rotation: Rotation | None = None) -> Any:
        """The state after N more tokens whose own output nobody needs."""

    def mix(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """What the first block adds, (B, N, D), and its memory after the segment."""
        _, mask, rotation, memory = context
        normed = self.attention_norm(x)
        if self.attention.memory_size == 0:
            return self._dropped(self.attention(normed, mask, rotation)), None
        y = self.attention(normed, mask, rotation, memory)
        return self._dropped(y), self.attention.remember(normed, memory)

    def feed(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the second block adds, (B, N, D), and its auxiliary loss ()."""
        y, loss = self.feedforward.run(self.feedforward_norm(x), mask)
        return self._dropped(y), loss

    def remember(self, x: Tensor, memory: Tensor | None) -> Tensor | None:
        """The memory after a segment (B, N, D) that the layer itself is not run on."""
        if self.attention.memory_size == 0:
            return None
        return self.attention.remember(self.attention_norm(x), memory)

    def _extend_mix(self, x: Tensor, state: Any, rotation: Rotation | None) -> tuple[Tensor, Any]:
        return self.attention.extend(self.attention_norm(x), state, rotation)

    def _extend_feed(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.feedforward.extend(self.feedforward_norm(x), state)

    def _dropped(self, y: Tensor) -> Tensor:
        return functional.dropout(y, self.dropout) if self.training and self.dropout else y
