"""What architectures cost, by arithmetic alone."""

from __future__ import annotations

from nas.schemas import ProfileRequest, ProfileResponse
from search_spaces.architecture import problems
from search_spaces.errors import InvalidArchitecture
from search_spaces.model_cost import model_cost


def profile(request: ProfileRequest) -> ProfileResponse:
    """The costs of each architecture for the batch that the request describes.

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
    items = [
        model_cost(
            architecture,
            batch_size=request.batch_size,
            sequence_length=request.sequence_length,
            vocab_size=request.vocab_size,
            num_outputs=request.num_outputs,
            causal=request.causal,
            head="token",
        ).metrics()
        for architecture in request.architectures
    ]
    return ProfileResponse(items=items)
