"""Genotype to module: ``build_model`` for a whole Transformer, ``build_attention`` for a part."""

from nas.models.registry import build_attention, build_feedforward, list_mechanisms
from nas.models.transformer import Memory, ModelOutput, ModelState, Transformer, build_model

__all__ = [
    "Memory",
    "ModelOutput",
    "ModelState",
    "Transformer",
    "build_attention",
    "build_feedforward",
    "build_model",
    "list_mechanisms",
]
