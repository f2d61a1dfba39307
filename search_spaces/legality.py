"""Which model-level values go together, and what the layers may then have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from search_spaces.errors import Problem
from search_spaces.halting.base import HaltingSpec
from search_spaces.options import MODEL_DECISIONS, AttentionOption, FeedForwardOption, Option
from search_spaces.values import Scalar

if TYPE_CHECKING:
    from search_spaces.definition import SpaceDefinition

MAX_COMBINATIONS = 4096
"""Most combinations of model-level values that conditions may tell apart."""


@dataclass(frozen=True, eq=False)
class Slot:
    """What each layer may have once the model-level values are chosen."""

    attention: Mapping[str, AttentionOption]
    feedforward: Mapping[str, FeedForwardOption]
    heads: tuple[int, ...]
    attention_types: tuple[str, ...]
    feedforward_types: tuple[str, ...]

    def size(self) -> int:
        """The number of different layers."""
        mixing = sum(
            prod(len(v) for f, v in option.hyperparameters.items() if f != GROUPED)
            * sum(len(self.heads_of(g)) for g in option.hyperparameters.get(GROUPED, (1,)))
            for option in self.attention.values()
        )
        return mixing * sum(variants(option) for option in self.feedforward.values())

    def fields_of(self, option: AttentionOption) -> Mapping[str, tuple[Scalar, ...]]:
        """The hyperparameters of an attention here, with the values that some heads go with."""
        fields = option.hyperparameters
        if GROUPED in fields:
            fields = fields | {GROUPED: tuple(g for g in fields[GROUPED] if self.heads_of(g))}
        return fields

    def heads_of(self, queries_per_key: Scalar) -> tuple[int, ...]:
        """The numbers of heads that groups of so many divide."""
        return tuple(h for h in self.heads if h % int(queries_per_key) == 0)


@dataclass(frozen=True, eq=False)
class Branch:
    """The legal values of one model-level decision, and where each leads."""

    name: str
    values: tuple[Scalar, ...]
    next: Mapping[Scalar, Any]
    """By value: the branch of the next decision, or after the last one a slot."""


GROUPED = "queries_per_key"
"""The hyperparameter of attention that must divide the number of heads."""

Node: TypeAlias = Branch | Slot


def _combine(halting: type[HaltingSpec], model: Mapping[str, Scalar]) -> bool:
    """Whether these model-level values go together, whatever the layers are."""
    if model["residual"] == "reversible" and (halting.adaptive or model["checkpointing"]):
        return False
    return halting.fits(int(model["depth"]), int(model["repeats"]))


def variants(option: Option[Any]) -> int:
    """In how many ways the hyperparameters of an option can be chosen."""
    return prod(len(values) for values in option.hyperparameters.values())


class Legality:
    """The tree of model-level decisions, in the order of ``MODEL_DECISIONS``.

    A value is legal when some architecture has it together with those chosen before, so no path
    has a dead end. Values that no rule tells apart share their branches.
    """

    def __init__(self, space: SpaceDefinition) -> None:
        self._space = space
        self._halting = {option.type: option for option in space.halting}
        self._repeats = {name: space.repeats_of(o) for name, o in self._halting.items()}
        self._alike = {name: self._representatives(name) for name in MODEL_DECISIONS}
        self._nodes: dict[tuple[Scalar, ...], Node | None] = {}
        kinds = (len(set(alike.values())) for alike in self._alike.values())
        self.tractable = prod(kinds) <= MAX_COMBINATIONS
        root = self._grow(()) if self.tractable else None
        self.start = root if isinstance(root, Branch) else None

    def problems(self) -> Iterator[Problem]:
        """What makes the space unusable: values that occur in no architecture of it."""
        if not self.tractable:
            message = f"conditions tell more than {MAX_COMBINATIONS} combinations of values apart"
            yield Problem("/conditionals", message)
            return
        obvious = [*self._widths_without_heads(), *self._positions_not_taken()]
        yield from obvious or self._unreachable()

    def _values(self, name: str) -> tuple[Scalar, ...]:
        if name == "halting":
            return tuple(self._halting)
        if name == "repeats":
            return tuple(sorted({r for values in self._repeats.values() for r in values}))
        values: tuple[Scalar, ...] = getattr(self._space, name)
        return values

    def _representatives(self, name: str) -> dict[Scalar, Scalar]:
        """For each value the first one that all rules treat like it."""
        first: dict[tuple[object, ...], Scalar] = {}
        named = [
            dict(conditions.items())[name]
            for _, conditions in self._space.conditions()
            if name in dict(conditions.items())
        ]
        alike: dict[Scalar, Scalar] = {}
        for value in self._values(name):
            treatment: list[object] = [value in values for values in named]
            if name == "width":
                treatment += [self._heads(value, rotary=False), self._heads(value, rotary=True)]
            elif name in ("halting", "position", "residual", "checkpointing"):
                treatment.append(value)
            elif name in ("depth", "repeats"):
                treatment.append(value == 1)  # where halting may have no choice
            alike[value] = first.setdefault(tuple(treatment), value)
        return alike

    def _grow(self, chosen: tuple[Scalar, ...]) -> Node | None:
        """The node after these representatives, or None when nothing legal follows."""
        if chosen not in self._nodes:
            if len(chosen) == len(MODEL_DECISIONS):
                self._nodes[chosen] = self._slot(dict(zip(MODEL_DECISIONS, chosen, strict=True)))
            else:
                name = MODEL_DECISIONS[len(chosen)]
                values = self._repeats[str(chosen[1])] if name == "repeats" else self._values(name)
                follow = {v: self._grow((*chosen, self._alike[name][v])) for v in values}
                legal = {v: node for v, node in follow.items() if node is not None}
                self._nodes[chosen] = Branch(name, tuple(legal), legal) if legal else None
        return self._nodes[chosen]

    def _slot(self, model: Mapping[str, Scalar]) -> Slot | None:
        for rule in self._space.conditionals:
            if rule.when.hold(model) and not rule.require.hold(model):
                return None
        halting = self._halting[str(model["halting"])]
        if not (halting.stands_in(model) and _combine(halting.spec, model)):
            return None
        attention = {o.type: o for o in self._space.attention if o.stands_in(model)}
        feedforward = {o.type: o for o in self._space.feedforward if o.stands_in(model)}
        heads = self._heads(model["width"], rotary=model["position"] == "rotary")
        if not (attention and feedforward and heads):
            return None
        slot = Slot(attention, feedforward, heads, tuple(attention), tuple(feedforward))
        fit = {t: o for t, o in attention.items() if all(slot.fields_of(o).values())}
        if not fit:
            return None
        return Slot(fit, feedforward, heads, tuple(fit), tuple(feedforward))

    def _heads(self, width: Scalar, *, rotary: bool) -> tuple[int, ...]:
        parts = 2 if rotary else 1  # rotary positions turn pairs of a head's channels
        return tuple(h for h in self._space.heads if int(width) % (h * parts) == 0)

    def _widths_without_heads(self) -> Iterator[Problem]:
        fit = tuple(str(w) for w in self._space.width if self._heads(w, rotary=False))
        for width in self._space.width:
            if str(width) not in fit:
                heads = ", ".join(map(str, self._space.heads))
                yield Problem("/width", f"none of the heads ({heads}) divides {width}", fit)

    def _positions_not_taken(self) -> Iterator[Problem]:
        taken = {p for option in self._space.attention for p in option.spec.positions}
        fit = tuple(p for p in self._space.position if p in taken)
        for position in self._space.position:
            if position not in taken:
                yield Problem("/position", f"no attention here takes {position} positions", fit)

    def _unreachable(self) -> Iterator[Problem]:
        if self.start is None:
            yield Problem("", "no architecture satisfies the conditions of the space")
            return
        reached = self._reached()
        for name in MODEL_DECISIONS:
            fit = tuple(str(v) for v in self._values(name) if v in reached[name])
            for value in self._values(name):
                if value not in reached[name]:
                    yield Problem(f"/{name}", f"no architecture can have {name} {value}", fit)
        for i, (kind, cycles) in enumerate(self._repeats.items()):
            for repeats in cycles:
                if kind in reached["halting"] and repeats not in reached[f"{kind} repeats"]:
                    message = f"no architecture can have {kind} with repeats {repeats}"
                    yield Problem(f"/halting/{i}/repeats", message)
        for block in ("attention", "feedforward"):
            for i, option in enumerate(getattr(self._space, block)):
                if option.type not in reached[block]:
                    yield Problem(f"/{block}/{i}", f"no architecture can have {option.type}")
        for i, grouped in enumerate(self._space.attention):
            groups = grouped.hyperparameters.get(GROUPED, ())
            written = groups and groups != grouped.spec.hyperparameters()[GROUPED].values
            for group in groups if written else ():
                if not any(int(h) % int(group) == 0 for h in reached["heads"]):
                    message = f"groups of {group} divide none of the heads"
                    yield Problem(f"/attention/{i}/{GROUPED}", message)
        for heads in self._space.heads:
            if heads not in reached["heads"]:
                yield Problem("/heads", f"no architecture can have {heads} heads")

    def _reached(self) -> dict[str, set[Scalar]]:
        """All values that occur on some path of the tree."""
        reached: dict[str, set[Scalar]] = {
            name: set() for name in (*MODEL_DECISIONS, "attention", "feedforward", "heads")
        }
        level: set[Node] = {self.start} if self.start else set()
        for name in MODEL_DECISIONS:
            branches = [node for node in level if isinstance(node, Branch)]
            for branch in branches:
                reached[name].update(branch.values)
                if name == "halting":
                    for kind, below in branch.next.items():
                        reached.setdefault(f"{kind} repeats", set()).update(below.values)
            level = {node for branch in branches for node in branch.next.values()}
        for slot in level:
            if isinstance(slot, Slot):
                reached["attention"].update(slot.attention)
                reached["feedforward"].update(slot.feedforward)
                reached["heads"].update(slot.heads)
        return reached
