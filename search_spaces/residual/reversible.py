"""Reversible: two streams, whose earlier values the backward pass computes from the last ones."""

from __future__ import annotations

from typing import ClassVar, Literal

from search_spaces.residual.base import ResidualSpec


class Reversible(ResidualSpec):
    """y₁ = x₁ + attention(norm(x₂)); y₂ = x₂ + feedforward(norm(y₁)).

    Both streams begin as the embeddings; what is read out is their mean, normed. What training
    keeps does not grow with the depth, but for the choices of experts and of buckets.
    """

    title: ClassVar[str] = "Reversible"
    complexity: ClassVar[str] = "O(N·D)"
    citation: ClassVar[str] = (
        "Gomez et al. 2017, arXiv:1707.04585; Kitaev et al. 2020, arXiv:2001.04451"
    )
    rebuilds: ClassVar[bool] = True

    type: Literal["reversible"] = "reversible"
