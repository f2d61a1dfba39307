"""The rungs that a job asks for."""

from __future__ import annotations

from nas.schemas import JobRequest
from nas.search.rungs import Rungs, hyperband_starts


def rungs_of(request: JobRequest) -> Rungs[int]:
    """Rungs without any trial yet."""
    fidelity = request.fidelity
    steps = fidelity.rungs()
    hyperband = fidelity.scheme == "hyperband"
    return Rungs(
        steps,
        reduction_factor=fidelity.reduction_factor,
        objectives=list(request.objectives),
        constraints=request.constraints,
        starts=hyperband_starts(len(steps), fidelity.reduction_factor) if hyperband else (1.0,),
        audit=fidelity.audit,
        seed=request.seed,
    )
