"""What the nodes of the Ray cluster have to give."""

from __future__ import annotations

import ray

from nas.schemas import Resources
from search_spaces import InvalidInput
from search_spaces.errors import Problem

HEAD_NODE = "node:__internal_head__"


def nodes() -> list[dict[str, float]]:
    """The resources of each living node that trains."""
    alive = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    found = [dict(n["Resources"]) for n in alive]
    return [resources for resources in found if resources.get("CPU", 0) >= 1]


def measuring_node() -> tuple[str, float]:
    """The node that latencies are of, by the resource that it alone has, and all of its CPUs: this
    process's own if it trains."""
    alive = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    own = ray.get_runtime_context().get_node_id()
    found = max(
        (n for n in alive if n["Resources"].get("CPU", 0) >= 1),
        key=lambda n: (n["NodeID"] == own, n["Resources"]["CPU"], n["NodeID"]),
    )
    resources = found["Resources"]
    name = next(r for r in resources if r.startswith("node:") and r != HEAD_NODE)
    return name, float(resources["CPU"])


def check_capacity(wanted: Resources) -> None:
    """Refuse a trial that no node could ever hold: it would wait for good.

    Raises:
        InvalidInput: with what the largest node has.
    """
    problems = []
    for field, resource, amount in (
        ("threads", "CPU", float(wanted.threads)),
        ("gpus", "GPU", wanted.gpus),
    ):
        most = max((n.get(resource, 0.0) for n in nodes()), default=0.0)
        if amount > most:
            problems.append(
                Problem(
                    f"/resources/{field}",
                    f"a trial wants {amount:g}, and no node of this cluster has as many",
                    (f"at most {most:g}",),
                )
            )
    if problems:
        raise InvalidInput(problems)


def slots(wanted: Resources) -> int:
    """How many trials can really be trained side by side, of those wanted."""
    room = 0
    for node in nodes():
        by_cpu = node["CPU"] // wanted.threads
        by_gpu = node.get("GPU", 0.0) // wanted.gpus if wanted.gpus else by_cpu
        room += int(min(by_cpu, by_gpu))
    return max(1, min(wanted.trials_at_once, room))
