"""What every halting spec states."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from search_spaces.cost import Cost
from search_spaces.values import Spec


class HaltingSpec(Spec):
    """How often the cycle of layers is run for a token, at most ``repeats`` times."""

    kind: ClassVar[str] = "halting"
    adaptive: ClassVar[bool]
    """Whether the executed depth depends on the data (and repeats must then be at least 2)."""

    @abstractmethod
    def cost(self, batch: int, length: int, width: int, repeats: int) -> Cost:
        """What the halting itself costs over all cycles, beside the layers.

        ``live_bytes`` are those that it holds while the layers run.
        """

    @abstractmethod
    def cycles(self, repeats: int) -> tuple[int, int]:
        """Fewest and most cycles of the layers that a batch may execute."""
