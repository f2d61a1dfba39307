"""All costs of one architecture."""

from __future__ import annotations

from search_spaces.architecture import Architecture, check
from search_spaces.model_cost import model_cost


def profile(
    arch: Architecture,
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    vocab_size: int = 256,
    num_outputs: int = 256,
    causal: bool = True,
) -> dict[str, float]:
    """Costs of an evaluation pass by the names of ``nas.catalogue.metrics``; nothing is trained.

    Raises:
        InvalidArchitecture: it cannot stand in a causal slot.
    """
    check(arch, causal=causal)
    return model_cost(
        arch,
        batch_size=batch_size,
        sequence_length=sequence_length,
        vocab_size=vocab_size,
        num_outputs=num_outputs,
        causal=causal,
        head="token",
    ).metrics()
