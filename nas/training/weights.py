"""Weights as safetensors: numbers and names, nothing that could be executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.atomic import replacing
from search_spaces.errors import InvalidInput, Problem


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict, whole or not at all."""
    # a copy each: safetensors takes no two names for one memory
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with replacing(path) as temporary:
        save_file(copies, temporary, metadata={"format": "pt"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Raises:
        InvalidInput: there is no such file, or it is not safetensors.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidInput([Problem("/weights", f"cannot read {path}: {error}")]) from error
