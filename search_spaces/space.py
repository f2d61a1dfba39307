"""A search space at work: sampling, variation, membership, flat choices and back.

There is one walk over the decisions of an architecture. Whatever makes an architecture takes it
and answers each decision in its own way: at random, from given choices, from parents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from search_spaces.architecture import Architecture, Layer
from search_spaces.attention.base import AttentionSpec
from search_spaces.definition import SpaceDefinition, read_definition
from search_spaces.descriptors import Descriptors
from search_spaces.errors import InvalidArchitecture, Problem, pointer
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.legality import GROUPED, Branch, Legality, Slot, variants
from search_spaces.options import Option
from search_spaces.reading import all_choices, pointer_to
from search_spaces.segments import starts
from search_spaces.values import Domain, Scalar
from search_spaces.variation import cross, draw, mutant

__all__ = ["Choose", "SearchSpace", "SpaceDefinition"]

Choose: TypeAlias = Callable[[str, tuple[Scalar, ...]], Scalar]
"""Answers one decision: its name, and the values that are legal after the answers before."""


class SearchSpace:
    """A declared set of architectures.

    ``rng`` is everywhere a ``random.Random`` or a seed. ``segments`` divides the layers into that
    many runs that are decided together; None decides each layer on its own.
    """

    def __init__(self, definition: SpaceDefinition) -> None:
        self.definition = definition
        start = Legality(definition).start
        if start is None:
            raise AssertionError("a definition that no architecture satisfies is refused earlier")
        self._start = start
        self._halting = {option.type: option for option in definition.halting}
        self._describe = Descriptors(definition)

    @classmethod
    def from_yaml(cls, path: Path) -> SearchSpace:
        """The space that a local file declares.

        Raises:
            InvalidSpace: it cannot be read, or is not a usable definition.
        """
        return cls(read_definition(path))

    def __reduce__(self) -> tuple[type[SearchSpace], tuple[SpaceDefinition]]:
        return SearchSpace, (self.definition,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.definition == other.definition

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    def __repr__(self) -> str:
        return f"SearchSpace({self.name}@{self.version})"

    @property
    def name(self) -> str:
        """Its name; with the version it names one set of architectures for good."""
        return self.definition.name

    @property
    def version(self) -> int:
        """Counts up whenever the set changes."""
        return self.definition.version

    @property
    def causal(self) -> bool:
        """Whether its architectures stand in causal slots."""
        return self.definition.causal

    def walk(self, choose: Choose, segments: int | None = None) -> Architecture:
        """The architecture that results when ``choose`` answers each decision there is.

        A decision is asked when those that it depends on are answered. Its answer must be one of
        the legal values. With ``segments``, a layer's decisions are asked for the first layer of
        each segment and hold for all of it.
        """
        at = self._start
        width = choose("width", at.values)
        at = at.next[width]
        halting = choose("halting", at.values)
        at = at.next[halting]
        option = self._halting[str(halting)]
        fields = _ask("halting", option, choose)
        repeats = at.values[0]
        if self.definition.decides_repeats(option):
            repeats = choose(f"halting.{halting}.repeats", at.values)
        at = at.next[repeats]
        position = choose("position", at.values)
        at = at.next[position]
        norm = choose("norm", at.values)
        at = at.next[norm]
        residual, at = self._optional("residual", at, choose)
        checkpointing, at = self._optional("checkpointing", at, choose)
        depth = choose("depth", at.values)
        slot: Slot = at.next[depth]
        layers: list[Layer] = []
        for first, after in pairwise((*starts(int(depth), segments), int(depth))):
            layers += [_ask_layer(f"layer.{first}", slot, choose)] * (after - first)
        return Architecture.model_validate(
            {
                "width": width,
                "layers": tuple(layers),
                "repeats": repeats,
                "position": position,
                "norm": norm,
                "residual": {"type": residual},
                "checkpointing": checkpointing,
                "halting": option.spec(**dict(zip(option.hyperparameters, fields, strict=True))),
            }
        )

    def _optional(self, name: str, at: Branch, choose: Choose) -> tuple[Scalar, Any]:
        """The answer to a decision that few spaces leave open, and the node after it."""
        open_to_choice = len(getattr(self.definition, name)) > 1
        answer = choose(name, at.values) if open_to_choice else at.values[0]
        return answer, at.next[answer]

    def sample(self, rng: Random | int, segments: int | None = None) -> Architecture:
        """A random member: each decision equally likely to take each of its legal values."""
        random = _random(rng)
        return self.walk(lambda name, legal: draw(random, legal), segments)

    def mutate(
        self, arch: Architecture, rng: Random | int, segments: int | None = None
    ) -> Architecture:
        """Another member, with one decision of the model or of one whole segment changed.

        A change of mechanism draws the new one's hyperparameters, a number mostly moves to a
        neighbour, a change of depth keeps the segments, and what a change makes illegal takes the
        nearest legal value. In a space of one architecture that one is returned.

        Raises:
            InvalidArchitecture: ``arch`` is not in the space.
        """
        return mutant(self, arch, _random(rng), segments)

    def crossover(self, a: Architecture, b: Architecture, rng: Random | int) -> Architecture:
        """A member that has each model-level decision, and each layer, of either parent.

        Raises:
            InvalidArchitecture: a parent is not in the space.
        """
        return cross(self, a, b, _random(rng))

    def homogeneous(self) -> Iterator[Architecture]:
        """All members with the same block in every layer, each once, in a fixed order."""
        path: list[int] = []
        while True:
            trace: list[tuple[int, int]] = []

            def choose(
                name: str,
                legal: tuple[Scalar, ...],
                path: list[int] = path,
                trace: list[tuple[int, int]] = trace,
            ) -> Scalar:
                index = path[len(trace)] if len(trace) < len(path) else 0
                trace.append((index, len(legal)))
                return legal[index]

            yield self.walk(choose, segments=1)
            while trace and trace[-1][0] + 1 == trace[-1][1]:
                trace.pop()
            if not trace:
                return
            path = [index for index, _ in trace]
            path[-1] += 1

    def size(self) -> int:
        """The exact number of architectures, counted without making them."""
        counts: dict[Branch, int] = {}

        def after(name: str, value: Scalar, child: Branch | Slot) -> int:
            if isinstance(child, Slot):
                different: int = child.size() ** int(value)
                return different
            ways = variants(self._halting[str(value)]) if name == "halting" else 1
            return ways * count(child)

        def count(branch: Branch) -> int:
            if branch not in counts:
                counts[branch] = sum(after(branch.name, v, c) for v, c in branch.next.items())
            return counts[branch]

        return count(self._start)

    def contains(self, arch: Architecture) -> bool:
        """Whether it is a member."""
        try:
            self.trace(arch)
        except InvalidArchitecture:
            return False
        return True

    def trace(self, arch: Architecture) -> list[tuple[str, Scalar, tuple[Scalar, ...]]]:
        """Its decisions in the order of choice: name, value, and the values legal at that point.

        Raises:
            InvalidArchitecture: it is not in the space; pointers are into the architecture.
        """
        given = all_choices(arch)
        trace: list[tuple[str, Scalar, tuple[Scalar, ...]]] = []

        def choose(name: str, legal: tuple[Scalar, ...]) -> Scalar:
            if given[name] not in legal:
                raise InvalidArchitecture([self._illegal(pointer_to(name), given[name], legal)])
            trace.append((name, given[name], legal))
            return given[name]

        built = self.walk(choose)
        if built != arch:
            fixed = all_choices(built)
            raise InvalidArchitecture(
                [
                    self._illegal(pointer_to(name), value, (fixed[name],))
                    for name, value in given.items()
                    if value != fixed[name]
                ]
            )
        return trace

    def decisions(self, arch: Architecture) -> dict[str, Scalar]:
        """Its choices, flat and by name, in the order of choice: those that apply to it alone.

        Raises:
            InvalidArchitecture: it is not in the space; pointers are into the architecture.
        """
        return {name: value for name, value, _ in self.trace(arch)}

    def assemble(self, decisions: Mapping[str, Scalar]) -> Architecture:
        """The member that these choices make. Choices that do not apply to it are not looked at.

        Raises:
            InvalidArchitecture: the first choice that is missing, or not legal after those before
                it; the pointer is into ``decisions``.
        """

        def choose(name: str, legal: tuple[Scalar, ...]) -> Scalar:
            where = pointer([name])
            if name not in decisions:
                raise InvalidArchitecture([Problem(where, "missing", tuple(map(str, legal)))])
            if decisions[name] not in legal:
                raise InvalidArchitecture([self._illegal(where, decisions[name], legal)])
            return legal[legal.index(decisions[name])]

        return self.walk(choose)

    def domains(self) -> dict[str, Domain]:
        """Every decision that some member has, with all its values, in the order of choice."""
        space = self.definition
        found: dict[str, tuple[Scalar, ...]] = {"width": space.width}
        found["halting"] = tuple(self._halting)
        for halting in space.halting:
            found |= _named("halting", halting)
            if space.decides_repeats(halting):
                found[f"halting.{halting.type}.repeats"] = space.repeats_of(halting)
        found |= {"position": space.position, "norm": space.norm}
        for name in ("residual", "checkpointing"):
            if len(values := getattr(space, name)) > 1:
                found[name] = values
        found["depth"] = space.depth
        for i in range(max(space.depth)):
            found[f"layer.{i}.attention"] = tuple(o.type for o in space.attention)
            for attention in space.attention:
                found |= _named(f"layer.{i}.attention", attention)
            found[f"layer.{i}.feedforward"] = tuple(o.type for o in space.feedforward)
            for feedforward in space.feedforward:
                found |= _named(f"layer.{i}.feedforward", feedforward)
            found[f"layer.{i}.heads"] = space.heads
        return {name: Domain(values) for name, values in found.items()}

    def describe(self, arch: Architecture) -> dict[str, float]:
        """Descriptors for models of quality: the same names for each member of the space."""
        return self._describe(arch)

    def fingerprint(self, arch: Architecture) -> str:
        """The identity of an architecture, the same in every space."""
        return arch.fingerprint()

    def _illegal(self, where: str, value: Scalar, legal: tuple[Scalar, ...]) -> Problem:
        message = f"{self.name}@{self.version} does not have {value} here"
        return Problem(where, message, tuple(map(str, legal)))


def _random(rng: Random | int) -> Random:
    return rng if isinstance(rng, Random) else Random(rng)


def _named(name: str, option: Option[Any]) -> dict[str, tuple[Scalar, ...]]:
    return {f"{name}.{option.type}.{f}": values for f, values in option.hyperparameters.items()}


def _ask(name: str, option: Option[Any], choose: Choose) -> tuple[Scalar, ...]:
    """Answers for the hyperparameters of an option, in their order."""
    return tuple(
        choose(f"{name}.{option.type}.{field}", values)
        for field, values in option.hyperparameters.items()
    )


def _ask_layer(name: str, slot: Slot, choose: Choose) -> Layer:
    attention = slot.attention[str(choose(f"{name}.attention", slot.attention_types))]
    legal = slot.fields_of(attention)
    fields = tuple(
        choose(f"{name}.attention.{attention.type}.{field}", values)
        for field, values in legal.items()
    )
    feedforward = slot.feedforward[str(choose(f"{name}.feedforward", slot.feedforward_types))]
    inner = _ask(f"{name}.feedforward", feedforward, choose)
    group = dict(zip(legal, fields, strict=True)).get(GROUPED, 1)
    heads = choose(f"{name}.heads", slot.heads_of(group))
    return _layer(
        attention.spec,
        tuple(attention.hyperparameters),
        fields,
        feedforward.spec,
        tuple(feedforward.hyperparameters),
        inner,
        int(heads),
    )


@lru_cache(maxsize=2**14)
def _layer(
    attention: type[AttentionSpec],
    attention_fields: tuple[str, ...],
    attention_values: tuple[Scalar, ...],
    feedforward: type[FeedForwardSpec],
    feedforward_fields: tuple[str, ...],
    feedforward_values: tuple[Scalar, ...],
    heads: int,
) -> Layer:
    """The layer with these parts; equal layers are one object, validated once."""
    return Layer(
        attention=attention(**dict(zip(attention_fields, attention_values, strict=True))),
        feedforward=feedforward(**dict(zip(feedforward_fields, feedforward_values, strict=True))),
        heads=heads,
    )
