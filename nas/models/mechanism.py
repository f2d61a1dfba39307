"""The tie between a spec and the module that realises it."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from torch import nn

from search_spaces.values import Spec


class Mechanism(nn.Module):
    """A module that realises one spec: ``class Full(Attention, spec=FullAttention)``."""

    realised: ClassVar[dict[type[Spec], type[Mechanism]]] = {}

    def __init_subclass__(cls, *, spec: type[Spec] | None = None, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if spec is None:
            return
        if spec in Mechanism.realised:
            raise TypeError(f"{spec.__name__} is realised twice: {cls}, {Mechanism.realised[spec]}")
        Mechanism.realised[spec] = cls


def module_class(spec: type[Spec]) -> type[Mechanism]:
    """The module class of a spec, found in the file of the same name under ``nas.models``."""
    if spec not in Mechanism.realised:
        importlib.import_module(spec.__module__.replace("search_spaces", "nas.models", 1))
    return Mechanism.realised[spec]
