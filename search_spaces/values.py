"""The base of everything declared: immutable, strict values and the domains of their fields."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict

Scalar: TypeAlias = bool | int | float | str


class Value(BaseModel):
    """An immutable value: equal by content, hashable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


@dataclass(frozen=True)
class Domain:
    """The values of one decision, in order.

    Attached to a field of a spec (``Annotated[int, Domain((16, 32))]``) it is what a space offers
    for the field when it does not say otherwise; a valid value need not be one of them.
    """

    values: tuple[Scalar, ...]

    @property
    def ordered(self) -> bool:
        """Whether neighbouring values are similar (numbers), not mere labels."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)


class Spec(Value):
    """One mechanism with its hyperparameters; ``type`` names it in JSON.

    Each concrete spec states where it may stand, what it costs in N and where it comes from.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    complexity: ClassVar[str]
    citation: ClassVar[str]
    causal: ClassVar[bool] = True

    type: str

    @classmethod
    def name(cls) -> str:
        """The value of ``type``, the mechanism's name everywhere."""
        return str(cls.model_fields["type"].default)

    @classmethod
    def hyperparameters(cls) -> dict[str, Domain]:
        """The searchable fields and the values a space offers for them by default."""
        domains: dict[str, Domain] = {}
        for field, info in cls.model_fields.items():
            for extra in info.metadata:
                if isinstance(extra, Domain):
                    domains[field] = extra
        return domains


def canonical_json(value: BaseModel) -> str:
    """JSON with sorted keys, no blanks, and defaults left out.

    Defaults are left out so that a field added later, with a neutral default, changes no old
    fingerprint; a default, once released, is never changed.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: BaseModel) -> str:
    """A stable identifier of the content: 128 bits of SHA-256 of the canonical JSON, in hex."""
    return _hash(canonical_json(value))


def digest(document: Any) -> str:
    """The same of a plain JSON document, defaults included."""
    return _hash(json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return _plain_spec(value)
    if isinstance(value, BaseModel):
        return _plain_fields(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@lru_cache(maxsize=2**12)
def _plain_spec(spec: Spec) -> dict[str, Any]:
    """Kept, for the same few mechanisms recur in the layers of all architectures."""
    return _plain_fields(spec)


def _plain_fields(value: BaseModel) -> dict[str, Any]:
    plain = dict(value.model_extra or {})
    for name, default in _defaults(type(value)):
        if (content := getattr(value, name)) != default:
            plain[name] = _plain(content)
    return plain


@lru_cache(maxsize=2**10)
def _defaults(model: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """Each field with its default, or with something unlike any value when it is always written."""
    return tuple(
        (
            name,
            object()
            if name == "type" or info.is_required()
            else info.get_default(call_default_factory=True),
        )
        for name, info in model.model_fields.items()
    )
