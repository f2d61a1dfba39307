"""An architecture read as flat choices: the names of decisions, and where each stands in it."""

from __future__ import annotations

from search_spaces.architecture import Architecture
from search_spaces.errors import pointer
from search_spaces.values import Scalar, Spec


def all_choices(arch: Architecture) -> dict[str, Scalar]:
    """Everything that an architecture has, by the name that a decision on it would have."""
    choices: dict[str, Scalar] = {
        "width": arch.width,
        "position": arch.position,
        "norm": arch.norm,
        "checkpointing": arch.checkpointing,
        "depth": arch.depth,
        **_mechanism("residual", arch.residual),
        **_mechanism("halting", arch.halting),
        f"halting.{arch.halting.type}.repeats": arch.repeats,
    }
    for i, layer in enumerate(arch.layers):
        choices |= _mechanism(f"layer.{i}.attention", layer.attention)
        choices |= _mechanism(f"layer.{i}.feedforward", layer.feedforward)
        choices[f"layer.{i}.heads"] = layer.heads
    return choices


def pointer_to(name: str) -> str:
    """The JSON pointer, into an architecture, of what a decision decides."""
    parts = name.split(".")
    if parts[0] == "depth":
        return "/layers"
    if parts[0] == "layer":
        return pointer(["layers", int(parts[1])]) + _within(parts[2:])
    if parts[0] == "halting" and parts[-1] == "repeats":
        return "/repeats"
    return _within(parts)


def _mechanism(name: str, spec: Spec) -> dict[str, Scalar]:
    choices: dict[str, Scalar] = {name: spec.type}
    for field, value in spec:
        if field != "type":
            choices[f"{name}.{spec.type}.{field}"] = value
    return choices


def _within(parts: list[str]) -> str:
    """``attention`` is decided by its type, ``attention.<type>.<field>`` by its field."""
    if len(parts) == 1:
        block = parts[0] in ("attention", "feedforward", "halting", "residual")
        return pointer([parts[0], "type"] if block else parts)
    return pointer([parts[0], parts[2]])
