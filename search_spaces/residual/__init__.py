"""Residual mechanisms, one spec per file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from search_spaces.registry import by_name
from search_spaces.residual.base import ResidualSpec
from search_spaces.residual.pre_norm import PreNorm
from search_spaces.residual.reversible import Reversible

RESIDUAL = by_name(PreNorm, Reversible)

if TYPE_CHECKING:
    AnyResidual = ResidualSpec
else:
    AnyResidual = Annotated[RESIDUAL.union(), Field(discriminator="type")]
