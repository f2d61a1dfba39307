"""The mechanisms that a space offers, each with the values of its hyperparameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from pydantic import (
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from search_spaces.attention import ATTENTION
from search_spaces.attention.base import AttentionSpec
from search_spaces.choices import (
    Depths,
    Flags,
    Labels,
    Norms,
    Positions,
    RepeatCounts,
    Residuals,
    Widths,
    offered,
    refuse,
)
from search_spaces.errors import pointer
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.halting import HALTING
from search_spaces.halting.base import HaltingSpec
from search_spaces.registry import Registry
from search_spaces.validation import problems_in, refusals
from search_spaces.values import Scalar, Spec, Value

S = TypeVar("S", bound=Spec)
ClassOf: TypeAlias = type[S]

MODEL_DECISIONS = (
    "width",
    "halting",
    "repeats",
    "position",
    "norm",
    "residual",
    "checkpointing",
    "depth",
)
"""What is chosen once for a model and may stand in a condition, in the order of choice."""


class _Sparse(Value):
    """A value that is written without what was not given."""

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # it is written by the function above, which has no schema: that of the fields holds
        fields = {key: part for key, part in schema.items() if key != "serialization"}
        return handler(cast(CoreSchema, fields))


class Conditions(_Sparse):
    """Values that model-level decisions must have, all of those that are named."""

    width: Widths | None = None
    halting: Labels | None = None
    repeats: RepeatCounts | None = None
    position: Positions | None = None
    norm: Norms | None = None
    residual: Residuals | None = None
    checkpointing: Flags | None = None
    depth: Depths | None = None

    def items(self) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
        """The decisions that are named, with the values that they may have."""
        for name in MODEL_DECISIONS:
            if (values := getattr(self, name)) is not None:
                yield name, values

    def hold(self, model: Mapping[str, Scalar]) -> bool:
        """Whether these model-level values satisfy all of them."""
        return all(model[name] in values for name, values in self.items())


class Option(_Sparse, Generic[S]):
    """One mechanism on offer; further keys are its hyperparameters with the values to choose from.

    The bare name of the mechanism offers each hyperparameter with the domain of its spec. ``when``
    restricts it to models with those values.
    """

    model_config = ConfigDict(extra="allow")
    registry: ClassVar[Registry[Any]]

    type: str
    when: Conditions | None = None
    __pydantic_extra__: dict[str, tuple[Scalar, ...]]

    @property
    def spec(self) -> ClassOf[S]:
        """The class of the mechanism."""
        spec: ClassOf[S] = self.registry[self.type]
        return spec

    @property
    def hyperparameters(self) -> dict[str, tuple[Scalar, ...]]:
        """The hyperparameters that are decisions, and their values."""
        return self.__pydantic_extra__

    def stands_in(self, model: Mapping[str, Scalar]) -> bool:
        """Whether a model with these values may have it."""
        return self.when is None or self.when.hold(model)

    @model_validator(mode="before")
    @classmethod
    def _with_domains(cls, written: Any) -> Any:
        if isinstance(written, str):
            written = {"type": written}
        if not isinstance(written, Mapping):
            return written
        name = written.get("type")
        if not isinstance(name, str) or name not in cls.registry:
            known = tuple(cls.registry)
            raise refuse(f"{name!r} is not one of the mechanisms here", "/type", known)
        spec: ClassOf[Spec] = cls.registry[name]
        own = {key: value for key, value in written.items() if key in cls.model_fields}
        given = {key: value for key, value in written.items() if key not in cls.model_fields}
        offer = offered(spec)
        for key in given:
            if key not in offer.model_fields:
                known = (*offer.model_fields, *(f for f in cls.model_fields if f != "type"))
                raise refuse(f"{name} has no {key!r}", pointer([key]), known)
        try:
            domains = offer.model_validate(given)
        except ValidationError as error:
            raise refusals(name, "invalid_space", problems_in(error, given)) from error
        return own | {field: values for field, values in domains if values is not None}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        whole = super().__get_pydantic_json_schema__(schema, handler)
        own = handler.resolve_ref_schema(whole)["properties"]
        forms: list[dict[str, Any]] = [{"type": "string", "enum": list(cls.registry)}]
        specs: Mapping[str, ClassOf[Spec]] = cls.registry
        for name, spec in specs.items():
            domains = offered(spec).model_json_schema().get("properties", {})
            forms.append(
                {
                    "title": spec.title,
                    "type": "object",
                    "properties": own | {"type": {"const": name, "type": "string"}} | domains,
                    "required": ["type"],
                    "additionalProperties": False,
                }
            )
        return {"anyOf": forms}


class AttentionOption(Option[AttentionSpec]):
    """A token-mixing mechanism on offer for each layer."""

    registry: ClassVar[Registry[Any]] = ATTENTION

    def stands_in(self, model: Mapping[str, Scalar]) -> bool:
        """Whether a model with these values may have it: its positions must suit it too."""
        return model["position"] in self.spec.positions and super().stands_in(model)


class FeedForwardOption(Option[FeedForwardSpec]):
    """A position-wise block on offer for each layer."""

    registry: ClassVar[Registry[Any]] = FEEDFORWARD


class HaltingOption(Option[HaltingSpec]):
    """A way of halting on offer for the model, with the numbers of cycles that go with it."""

    registry: ClassVar[Registry[Any]] = HALTING

    repeats: RepeatCounts | None = None
