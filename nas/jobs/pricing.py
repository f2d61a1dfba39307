"""What architectures cost, before any of them is trained."""

from __future__ import annotations

from nas.catalogue.tasks import TaskShape
from nas.costs import LatencyTable, known_costs, shape_key
from nas.schemas import ProfileRequest, ProfileResponse
from nas.store import Store, latency
from search_spaces.architecture import problems
from search_spaces.errors import InvalidArchitecture


def profile(store: Store, request: ProfileRequest) -> ProfileResponse:
    """The costs of each architecture for the batch that the request describes.

    ``latency_ms`` is among them when a worker has measured a device for batches of that shape.

    Raises:
        InvalidArchitecture: some cannot stand in a slot of that kind; each problem has its pointer.
    """
    found = [
        problem.under(f"/architectures/{i}")
        for i, architecture in enumerate(request.architectures)
        for problem in problems(architecture, causal=request.causal)
    ]
    if found:
        raise InvalidArchitecture(found)
    shape = TaskShape(
        request.vocab_size, request.num_outputs, request.sequence_length, request.causal, "token"
    )
    with store.read() as session:
        stored = latency.newest(session, shape_key(shape, request.batch_size))
    table = LatencyTable.model_validate(stored) if stored else None
    return ProfileResponse(
        items=[known_costs(a, shape, request.batch_size, table) for a in request.architectures]
    )
