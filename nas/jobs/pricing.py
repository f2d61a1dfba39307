"""What architectures cost, before any of them is trained."""

from __future__ import annotations

from nas.catalogue.tasks import TaskShape
from nas.costs import known_costs, shape_key
from nas.latency.table import METRIC, LatencyTable
from nas.schemas import LatencyError, LatencySource, ProfileRequest, ProfileResponse
from nas.store import Store, latency
from search_spaces.architecture import problems
from search_spaces.errors import InvalidArchitecture


def profile(store: Store, request: ProfileRequest) -> ProfileResponse:
    """The costs of each architecture for the batch that the request describes.

    Latencies are among them when a worker has measured a device for batches of that shape.

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
    table = LatencyTable.read(stored)
    return ProfileResponse(
        items=[known_costs(a, shape, request.batch_size, table) for a in request.architectures],
        latency=None if table is None else source(table),
    )


def source(table: LatencyTable) -> LatencySource:
    """What a table says of itself."""
    errors = {
        METRIC[mode]: LatencyError(relative_error=fits.relative_error, low=fits.low, high=fits.high)
        for mode, fits in table.modes.items()
    }
    return LatencySource(device=table.device, alone=table.alone, errors=errors)
