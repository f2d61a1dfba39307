"""What every feed-forward module offers.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from nas.models.mechanism import Mechanism
from search_spaces.feedforward.base import FeedForwardSpec

S = TypeVar("S", bound=FeedForwardSpec)


@dataclass(frozen=True)
class FeedForwardSlot:
    """Where a feed-forward module stands."""

    d_model: int
    max_length: int
    causal: bool


class FeedForward(Mechanism, Generic[S]):
    """The second block of a layer, (B, N, D) → (B, N, D).

    One that looks beyond single positions overrides ``init_state`` and ``extend``; one with a loss
    of its own overrides ``run`` and names the loss in ``auxiliary``.
    """

    auxiliary: ClassVar[str | None] = None

    def __init__(self, spec: S, slot: FeedForwardSlot) -> None:
        super().__init__()
        self.spec = spec
        self.causal = slot.causal

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) → (B, N, D); mask (B, N), True = valid; padded positions get finite rubbish."""

    @abstractmethod
    def last_projections(self) -> tuple[nn.Linear, ...]:
        """What writes the output: a deep model starts with these made smaller."""

    def run(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``forward``, and the auxiliary loss (), already weighted, if there is one."""
        return self(x, mask), None

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token; None where positions do not depend on each other."""
        return None

    def extend(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Go on from a state with N more tokens (B, N, D): their outputs, and the state after."""
        return self(x), state
