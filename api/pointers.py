"""From pydantic's errors to JSON pointers into the document, with what is allowed there.

Pydantic's location of an error names union members and tags beside keys and indices. Walking the
document's type along the location tells them apart, and finds what would have been allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from search_spaces.errors import Problem, pointer

OBJECT_EXPECTED = "an object is expected"
MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "required, but missing",
    "model_type": OBJECT_EXPECTED,
    "model_attributes_type": OBJECT_EXPECTED,
    "dict_type": OBJECT_EXPECTED,
}
"""Instead of pydantic's own text, where that speaks of Python."""

CONTAINERS = {"list": list, "tuple": tuple, "dict": dict}
"""By the names that pydantic gives them in the location of an error in a union."""

_WRONG_KIND = re.compile(r"_type$|^none_required$")


@dataclass(frozen=True)
class _Node:
    """A place in a document's type: what stands there, and what discriminates it if a union."""

    annotation: Any
    discriminator: str | None = None
    enum: tuple[str, ...] = ()

    @classmethod
    def of(cls, annotation: Any, info: FieldInfo | None = None) -> _Node:
        """The node of an annotation, with the field's or the annotation's own metadata."""
        found = [info] if info else []
        while get_origin(annotation) is Annotated:
            annotation, *extras = get_args(annotation)
            found += [extra for extra in extras if isinstance(extra, FieldInfo)]
        discriminator: str | None = None
        enum: Any = ()
        for each in found:
            if isinstance(each.discriminator, str):
                discriminator = each.discriminator
            if isinstance(each.json_schema_extra, dict):
                enum = each.json_schema_extra.get("enum", enum)
        return cls(annotation, discriminator, tuple(enum))

    @property
    def members(self) -> tuple[_Node, ...]:
        """The members of a union, without None; nothing for all else."""
        if get_origin(self.annotation) not in (Union, UnionType):
            return ()
        return tuple(_Node.of(a) for a in get_args(self.annotation) if a is not NoneType)

    @property
    def model(self) -> type[BaseModel] | None:
        """The model that stands here, if it is one."""
        here = self.annotation
        return here if isinstance(here, type) and issubclass(here, BaseModel) else None

    def plain(self) -> _Node:
        """The node itself, without the union of it with None."""
        if self.discriminator or len(self.members) != 1:
            return self
        return self.members[0].plain()

    def allowed(self) -> tuple[str, ...]:
        """The values that may stand here, when they are a closed set."""
        node = self.plain()
        if node.enum:
            return node.enum
        if get_origin(node.annotation) is Literal:
            return tuple(str(value) for value in get_args(node.annotation))
        if node.discriminator:
            return tuple(
                tag for member in node.members for tag in _tags(member, node.discriminator)
            )
        return ()

    def keys(self) -> tuple[str, ...]:
        """The keys that may stand here, when it is an object."""
        model = self.plain().model
        return tuple(f.alias or name for name, f in model.model_fields.items()) if model else ()

    def at(self, part: int | str) -> tuple[_Node, bool]:
        """The node one part further, and whether the part belongs in the pointer."""
        node = self.plain()
        if node.members:
            return node._member(str(part)), False
        if node.model:
            for name, info in node.model.model_fields.items():
                if part in (name, info.alias):
                    return _Node.of(info.annotation, info), True
            return _Node(Any), True
        arguments = get_args(node.annotation)
        origin = get_origin(node.annotation)
        if origin is dict and len(arguments) == 2:
            return _Node.of(arguments[1]), part != "[key]"
        if origin in (list, tuple) and arguments and isinstance(part, int):
            fixed = origin is tuple and Ellipsis not in arguments and part < len(arguments)
            return _Node.of(arguments[part if fixed else 0]), True
        return _Node(Any), True

    def _member(self, label: str) -> _Node:
        """The union's member that pydantic calls so: by its tag, or by the name of its class."""
        for member in self.members:
            if self.discriminator and label in _tags(member, self.discriminator):
                return member
        container = CONTAINERS.get(label.partition("[")[0])
        if container is not None:
            alike = [m for m in self.members if get_origin(m.annotation) is container]
        else:
            # a validator around a model is named around the model's name
            names = re.findall(r"\w+", label)
            alike = [m for m in self.members if m.model and m.model.__name__ in names]
        return alike[0] if alike else _Node(Any)


def _tags(member: _Node, discriminator: str) -> tuple[str, ...]:
    field = member.model.model_fields.get(discriminator) if member.model else None
    return tuple(str(v) for v in get_args(field.annotation)) if field else ()


def document_problems(
    errors: Iterable[Mapping[str, Any]], document: Any, value: Any
) -> list[Problem]:
    """Problems in ``value``, which should have been a ``document``, from pydantic's errors.

    Each error's ``loc`` starts in the document. A pointer goes no further than the value does,
    save for a key that is missing.
    """
    root = _Node.of(document)
    found = [_problem(error, root, value) for error in errors if not _consequence(error)]
    mistaken = {place for place, _, wrong_kind in found if place is not None and not wrong_kind}
    # in a union, the member that the input was meant for speaks; the others would only say that
    # they are of another kind
    return list(
        dict.fromkeys(
            problem
            for place, problem, wrong_kind in found
            if not (wrong_kind and place in mistaken)
        )
    )


def _problem(error: Mapping[str, Any], root: _Node, value: Any) -> tuple[str | None, Problem, bool]:
    """The problem; the pointer of the union that it lies in, if any; and whether it says no more
    than that the input is of another kind than this member."""
    node, parent = root, root
    parts: list[int | str] = []
    union: str | None = None
    branch_only = False
    for part in error["loc"]:
        parent = node
        node, belongs = node.at(part)
        if belongs:
            parts.append(part)
            branch_only = False
        elif not parent.plain().discriminator:
            union, branch_only = pointer(parts), True
    kind, context = error["type"], error.get("ctx", {})
    if kind.startswith("union_tag"):
        parts.append(str(context["discriminator"]).strip("'"))
    place = pointer(_present(parts, value)) + str(context.get("pointer", ""))
    wrong_kind = branch_only and bool(_WRONG_KIND.search(kind))
    return union, Problem(place, _message(error), _allowed(error, node, parent)), wrong_kind


def _consequence(error: Mapping[str, Any]) -> bool:
    """Whether a list is only too short for its items being refused, which is told already."""
    if error["type"] != "too_short":
        return False
    least: int = error["ctx"]["min_length"]
    return len(error["input"]) >= least


def _present(parts: Sequence[int | str], value: Any) -> list[int | str]:
    """The parts as far as there is something that can have them: a scalar may stand for a list."""
    found: list[int | str] = []
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
        found.append(part)
    return found


def _message(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "union_tag_invalid":
        return f"there is no {context['discriminator']} {context['tag']!r}".replace("'", "", 2)
    if kind == "union_tag_not_found":
        return MESSAGES["missing"]
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return MESSAGES.get(kind, re.sub(r"^\w+ should ", "must ", str(error["msg"])))


def _allowed(error: Mapping[str, Any], node: _Node, parent: _Node) -> tuple[str, ...]:
    kind, context = error["type"], error.get("ctx", {})
    if "allowed" in context:
        return tuple(str(value) for value in context["allowed"])
    if kind == "extra_forbidden":
        return parent.keys()
    if closed := node.allowed():
        return closed
    return tuple(re.findall(r"'([^']*)'", str(context.get("expected", ""))))


def parameter_problem(error: Mapping[str, Any]) -> Problem:
    """The problem of a query parameter, a header or a part of the path; the pointer is its name."""
    name = str(error["loc"][1]) if len(error["loc"]) > 1 else str(error["loc"][0])
    context = error.get("ctx", {})
    expected = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    return Problem(name, _message(error), tuple(context.get("allowed", expected)))
