"""Before anything trains: price a pool of the space, refuse what cannot be met, fix the scales."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.catalogue.metrics import METRICS
from nas.schemas import Constraint, JobRequest
from nas.search.pareto import Scale
from search_spaces import Architecture, InvalidInput, SearchSpace
from search_spaces.errors import Problem

POOL = 2000


def draw_pool(space: SearchSpace, seed: int) -> list[Architecture]:
    """Architectures of the space, half of them the same block in every layer."""
    rng = random.Random(f"pool:{seed}")
    return [space.sample(rng, segments=1 if i % 2 else None) for i in range(POOL)]


@dataclass(frozen=True)
class Screening:
    """What the pool has shown."""

    scales: dict[str, Scale]


def screen(
    pool: Sequence[Architecture],
    costs: Callable[[Architecture], dict[str, float]],
    request: JobRequest,
    trivial_loss: float,
) -> Screening:
    """Scales of all metrics over the priced pool.

    Raises:
        InvalidInput: a constraint that nothing in the pool meets, with the nearest value seen.
    """
    priced = [costs(arch) for arch in pool]
    _check_constraints(priced, request.constraints)
    depths = [float(arch.depth * arch.repeats) for arch in pool]
    scales = {
        "loss": Scale(low=0.0, high=trivial_loss, log=False, maximize=False),
        "accuracy": Scale(low=0.0, high=1.0, log=False, maximize=True),
        "expected_depth": Scale(low=0.0, high=max(depths), log=False, maximize=False),
        "expected_flops": _spanning(
            "expected_flops", [price[name] for price in priced for name in ("flops_low", "flops")]
        ),
        "effective_context": Scale(
            low=1.0, high=float(request.task.shape().sequence_length), log=True, maximize=True
        ),
    }
    for name in priced[0]:
        scales[name] = _spanning(name, [price[name] for price in priced])
    return Screening(scales)


def _spanning(name: str, values: Sequence[float]) -> Scale:
    """A metric's scale over the values that the pool has."""
    low, high = min(values), max(values)
    if low == high:  # a cost that is the same for all: give the axis some length
        low, high = 0.5 * low, 2.0 * high + 1e-9
    metric = METRICS[name]
    return Scale(low, high, log=metric.scale == "log", maximize=metric.direction == "maximize")


def _check_constraints(
    priced: Sequence[dict[str, float]], constraints: Sequence[Constraint]
) -> None:
    feasible = list(range(len(priced)))
    found: list[Problem] = []
    for i, bound in enumerate(constraints):
        if bound.metric not in priced[0]:
            continue  # known from training only
        values = [price[bound.metric] for price in priced]
        kept = [j for j, value in enumerate(values) if _meets(value, bound)]
        if not kept:
            least, most = min(values), max(values)
            found.append(
                Problem(
                    f"/constraints/{i}",
                    f"no architecture of {len(priced)} drawn from the space meets {_say(bound)}",
                    (f"{least:.6g} to {most:.6g} {METRICS[bound.metric].unit}",),
                )
            )
        feasible = [j for j in feasible if _meets(values[j], bound)]
    if not found and not feasible:
        together = " and ".join(_say(c) for c in constraints)
        found.append(
            Problem(
                "/constraints",
                f"no architecture of {len(priced)} drawn from the space meets {together} together",
            )
        )
    if found:
        raise InvalidInput(found)


def _meets(value: float, bound: Constraint) -> bool:
    return (bound.min is None or value >= bound.min) and (bound.max is None or value <= bound.max)


def _say(bound: Constraint) -> str:
    low = "" if bound.min is None else f"{bound.min:g} ≤ "
    high = "" if bound.max is None else f" ≤ {bound.max:g}"
    return f"{low}{bound.metric}{high}"
