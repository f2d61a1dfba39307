"""Models with exits, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.models import Transformer, build_model
from search_spaces.architecture import Architecture

V, N, C = 20, 40, 5
LAYERS: list[dict[str, Any]] = [
    {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 2}},
    {"attention": {"type": "longformer", "window": 5}, "feedforward": {"type": "gated"}},
    {"attention": {"type": "linear"}, "feedforward": {"type": "dense", "ratio": 2}},
]


def architecture(kind: str = "early_exit", **fields: Any) -> Architecture:
    given = {"width": 16, "layers": LAYERS, "halting": {"type": kind}, "position": "learned"}
    return Architecture.model_validate(given | fields)


def model(kind: str = "early_exit", **fields: Any) -> Transformer:
    """One whose positions leave at different exits when it is not trained."""
    shape: dict[str, Any] = {"causal": True, "head": "token", "num_outputs": C}
    shape |= {name: fields.pop(name) for name in list(fields) if name in shape}
    if kind == "early_exit":
        fields.setdefault("halting", {"type": kind, "threshold": 0.27})
    torch.manual_seed(0)
    net = build_model(architecture(kind, **fields), vocab_size=V, max_length=N, **shape).double()
    if kind == "depth_adaptive":
        torch.nn.init.normal_(net.halting.unit.weight, std=1.0)
        torch.nn.init.zeros_(net.halting.unit.bias)
    return net.eval()


def tokens(batch: int = 2, length: int = N, seed: int = 0) -> Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))
