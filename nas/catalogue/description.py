"""The catalogue describes itself: plain documents for the service and the command line."""

from __future__ import annotations

from typing import Any

from nas.catalogue.metrics import METRICS
from nas.catalogue.spaces import default_space
from nas.catalogue.strategies import STRATEGIES
from nas.catalogue.tasks import TASKS
from nas.errors import NotFound
from search_spaces import list_spaces, load_space
from search_spaces.attention import ATTENTION
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.halting import HALTING
from search_spaces.registry import Registry
from search_spaces.residual import RESIDUAL
from search_spaces.values import Spec, Value

KINDS: dict[str, Registry[Any]] = {
    "attention": ATTENTION,
    "feedforward": FEEDFORWARD,
    "halting": HALTING,
    "residual": RESIDUAL,
}
"""The kinds of mechanism."""

Document = dict[str, Any]


def spaces() -> list[Document]:
    """Every preset in short: name, version, what it is for, how many architectures it holds."""
    return [_space(f"{name}@{version}") for name, version in list_spaces()]


def space(name: str) -> Document:
    """One preset (name or name@version) with its definition and the domain of each decision.

    Raises:
        NotFound: there is none of that name.
    """
    known = [label for n, v in list_spaces() for label in (n, f"{n}@{v}")]
    if name not in known:
        raise NotFound(f"there is no space {name} (there are: {', '.join(known)})")
    loaded = load_space(name)
    return {
        **_space(name),
        "definition": loaded.definition.model_dump(mode="json"),
        "domains": {name: list(domain.values) for name, domain in loaded.domains().items()},
    }


def mechanisms(kind: str | None = None) -> list[Document]:
    """Every mechanism, or those of one kind (see ``KINDS``)."""
    return [
        _mechanism(spec)
        for name, registry in KINDS.items()
        if kind in (None, name)
        for spec in registry.values()
    ]


def tasks() -> list[Document]:
    """Every task: what it measures, the shape of its model at the defaults, its settings."""
    found = []
    for name, task in TASKS.items():
        shape = task(name=name).shape()
        found.append(
            {
                "name": name,
                "title": task.title,
                "description": task.description,
                "causal": shape.causal,
                "metrics": list(task.metrics),
                "default_space": default_space(shape.causal),
                "shape": {
                    "vocab_size": shape.vocab_size,
                    "num_outputs": shape.num_outputs,
                    "sequence_length": shape.sequence_length,
                    "head": shape.head,
                },
                **_settings(task),
            }
        )
    return found


def strategies() -> list[Document]:
    """Every strategy with its settings."""
    return [
        {
            "name": name,
            "title": strategy.title,
            "description": _text(strategy),
            "citation": strategy.citation,
            **_settings(strategy),
        }
        for name, strategy in STRATEGIES.items()
    ]


def metrics() -> list[Document]:
    """Every metric: unit, direction, scale and when it is known."""
    return [
        {
            "name": metric.name,
            "unit": metric.unit,
            "direction": metric.direction,
            "known": metric.known,
            "scale": metric.scale,
            "description": metric.description,
        }
        for metric in METRICS.values()
    ]


def _space(label: str) -> Document:
    loaded = load_space(label)
    return {
        "name": loaded.name,
        "version": loaded.version,
        "description": loaded.definition.description,
        "causal": loaded.causal,
        # exact, and beyond what a reader's numbers hold: text
        "size": str(loaded.size()),
    }


def _mechanism(spec: type[Spec]) -> Document:
    return {
        "name": spec.name(),
        "kind": spec.kind,
        "title": spec.title,
        "description": _text(spec),
        "causal": spec.causal,
        "complexity": spec.complexity,
        "citation": spec.citation,
        "domains": {name: list(domain.values) for name, domain in spec.hyperparameters().items()},
        **_settings(spec, without="type"),
    }


def _settings(value: type[Value], without: str = "name") -> Document:
    """The JSON schema of the settings, and the defaults of those that have one."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in value.model_fields.items()
        if name != without and not field.is_required()
    }
    return {"schema": value.model_json_schema(), "defaults": defaults}


def _text(described: type) -> str:
    return " ".join((described.__doc__ or "").split())
