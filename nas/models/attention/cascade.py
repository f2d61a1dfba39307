"""Cascade: a sliding window that grows from layer to layer."""

from __future__ import annotations

from nas.models.attention.base import AttentionSlot
from nas.models.attention.local import LocalAttention
from search_spaces.attention.cascade import CascadeAttention


class Cascade(LocalAttention[CascadeAttention], spec=CascadeAttention):
    """A window of ``window`` keys; a model builds each layer from ``spec.at(layer)``."""

    def __init__(self, spec: CascadeAttention, slot: AttentionSlot) -> None:
        super().__init__(spec, slot, spec.window)
