"""Halting mechanisms, one spec per file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from search_spaces.halting.act import AdaptiveComputationTime
from search_spaces.halting.base import HaltingSpec
from search_spaces.halting.depth_adaptive import DepthAdaptive
from search_spaces.halting.early_exit import EarlyExit
from search_spaces.halting.none import NoHalting
from search_spaces.registry import by_name

HALTING = by_name(NoHalting, AdaptiveComputationTime, EarlyExit, DepthAdaptive)

if TYPE_CHECKING:
    AnyHalting = HaltingSpec
else:
    AnyHalting = Annotated[HALTING.union(), Field(discriminator="type")]
