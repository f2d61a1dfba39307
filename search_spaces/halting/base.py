"""What every halting spec states."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from search_spaces.cost import Cost
from search_spaces.norms import Norm
from search_spaces.values import Spec


@dataclass(frozen=True)
class HaltingSlot:
    """The model in which it halts: D, distinct layers, cycles, norm, and what its head gives.

    pooled: whether the model answers once for a sequence, not at every position.
    """

    width: int
    depth: int
    repeats: int
    norm: Norm = "layer_norm"
    outputs: int = 1
    pooled: bool = False

    @property
    def runs(self) -> int:
        """How many layers are run where nothing halts."""
        return self.depth * self.repeats


class HaltingSpec(Spec):
    """How many of the layers, which the cycle runs ``repeats`` times, are run for a token."""

    kind: ClassVar[str] = "halting"
    adaptive: ClassVar[bool]
    """Whether the executed depth depends on the data."""
    exits: ClassVar[bool] = False
    """Whether a token may leave after any layer rather than after a whole cycle."""

    @classmethod
    def fits(cls, depth: int, repeats: int) -> bool:
        """Whether a model of that many layers and cycles leaves a choice of where to halt."""
        return not cls.adaptive or (depth * repeats if cls.exits else repeats) >= 2

    @abstractmethod
    def cost(self, batch: int, length: int, slot: HaltingSlot) -> Cost:
        """What the halting itself costs over all cycles, beside the layers and the model's head.

        ``live_bytes`` are those that it holds while the layers run. Where there are exits,
        ``flops_low`` is that of leaving at the first, without the model's own head.
        """

    @abstractmethod
    def layers(self, slot: HaltingSlot) -> tuple[int, int]:
        """Fewest and most layers that a batch may execute."""
