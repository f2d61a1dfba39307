"""A child's start from its parent's weights, where shapes and operators allow."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture

SHARED = ("qkv.", "out.")
"""Projections of an attention block, which mean the same whatever mixes between them."""


@torch.no_grad()
def inherit(
    model: nn.Module, child: Architecture, weights: Mapping[str, Tensor], parent: Architecture
) -> float:
    """Write over the child's fresh weights what the parent has of the same name and shape.

    What is an operator's own is taken from the same operator alone; projections, embeddings, norms
    and heads from any. Returns the share of the child's parameters that was taken.
    """
    taken = 0
    for name, tensor in model.state_dict().items():
        given = weights.get(name)
        if given is None or given.shape != tensor.shape or not _means_the_same(name, child, parent):
            continue
        tensor.copy_(given)
        taken += int(tensor.numel())
    return taken / sum(int(tensor.numel()) for tensor in model.state_dict().values())


def _means_the_same(name: str, child: Architecture, parent: Architecture) -> bool:
    """Whether parameters of that name play the same part in both."""
    where, _, rest = name.partition(".")
    if where == "halting":
        return child.halting.type == parent.halting.type
    if where != "layers":
        return True
    place, _, rest = rest.partition(".")
    block, _, own = rest.partition(".")
    ours, theirs = child.layers[int(place)], parent.layers[int(place)]
    if block == "attention":
        return own.startswith(SHARED) or ours.attention.type == theirs.attention.type
    if block == "feedforward":
        return ours.feedforward.type == theirs.feedforward.type
    return True
