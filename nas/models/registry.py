"""Specs to modules: building one mechanism, and the names of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nas.models.attention.base import Attention, AttentionSlot, Shared
from nas.models.feedforward.base import FeedForward, FeedForwardSlot
from nas.models.mechanism import module_class
from search_spaces.attention import ATTENTION, AnyAttention
from search_spaces.attention.base import AttentionSpec, Position
from search_spaces.errors import InvalidInput, Problem, pointer
from search_spaces.feedforward import FEEDFORWARD, AnyFeedForward
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.halting import HALTING
from search_spaces.registry import Registry
from search_spaces.residual import RESIDUAL

KINDS: dict[str, Registry[Any]] = {
    "attention": ATTENTION,
    "feedforward": FEEDFORWARD,
    "halting": HALTING,
    "residual": RESIDUAL,
}

_ATTENTION: TypeAdapter[AttentionSpec] = TypeAdapter(AnyAttention)
_FEEDFORWARD: TypeAdapter[FeedForwardSpec] = TypeAdapter(AnyFeedForward)


def list_mechanisms(kind: str | None = None) -> list[str]:
    """Names of the mechanisms of a kind (None: of all kinds).

    Raises:
        InvalidInput: an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise InvalidInput([Problem("", f"no kind of mechanism {kind!r}", tuple(KINDS))])
    kinds = KINDS if kind is None else [kind]
    return [name for k in kinds for name in KINDS[k]]


def build_attention(
    spec: AttentionSpec | Mapping[str, Any],
    *,
    d_model: int,
    heads: int,
    max_length: int,
    causal: bool,
    position: Position = "none",
    shared: Shared | None = None,
) -> Attention[Any]:
    """A token-mixing module (B, N, D) → (B, N, D) from its spec or the spec's JSON.

    Raises:
        InvalidInput: not a spec; heads do not divide the width; an encoder's mechanism made causal.
    """
    known = spec if isinstance(spec, AttentionSpec) else _parse(_ATTENTION, spec)
    build: Any = module_class(type(known))
    slot = AttentionSlot(d_model, heads, max_length, causal, position, shared)
    module: Attention[Any] = build(known, slot)
    return module


def build_feedforward(
    spec: FeedForwardSpec | Mapping[str, Any], *, d_model: int, max_length: int, causal: bool
) -> FeedForward[Any]:
    """A feed-forward module (B, N, D) → (B, N, D) from its spec or the spec's JSON.

    Raises:
        InvalidInput: not a spec.
    """
    known = spec if isinstance(spec, FeedForwardSpec) else _parse(_FEEDFORWARD, spec)
    build: Any = module_class(type(known))
    module: FeedForward[Any] = build(known, FeedForwardSlot(d_model, max_length, causal))
    return module


def _parse(adapter: TypeAdapter[Any], spec: Mapping[str, Any]) -> Any:
    try:
        return adapter.validate_python(dict(spec))
    except ValidationError as error:
        raise InvalidInput(
            [Problem(pointer(e["loc"]), e["msg"]) for e in error.errors()]
        ) from error
