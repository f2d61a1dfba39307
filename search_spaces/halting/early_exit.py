"""Early exit: a token leaves at the first layer whose classifier is sure enough."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.halting.exits import ExitHalting
from search_spaces.values import Domain


class EarlyExit(ExitHalting):
    """A classifier after each layer; who is sure by ``threshold`` leaves with its answer.

    Sure means that the greatest probability is at least the threshold. In training all layers are
    run, and the loss is the mean of those of all exits, with equal weights.
    """

    title: ClassVar[str] = "Early exit"
    complexity: ClassVar[str] = "O(N·D·C) per layer"
    citation: ClassVar[str] = (
        "Teerapittayanon et al. 2016, arXiv:1709.01686; Huang et al. 2018, arXiv:1703.09844"
    )

    type: Literal["early_exit"] = "early_exit"
    threshold: Annotated[float, Field(gt=0, le=1), Domain((0.7, 0.9, 0.99))] = 0.9
