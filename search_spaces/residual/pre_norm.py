"""Pre-norm: x + f(norm(x))."""

from __future__ import annotations

from typing import ClassVar, Literal

from search_spaces.residual.base import ResidualSpec


class PreNorm(ResidualSpec):
    """x ← x + attention(norm(x)); x ← x + feedforward(norm(x)); a norm after the last layer."""

    title: ClassVar[str] = "Pre-norm"
    complexity: ClassVar[str] = "O(N·D)"
    citation: ClassVar[str] = "Xiong et al. 2020, arXiv:2002.04745"

    type: Literal["pre_norm"] = "pre_norm"
