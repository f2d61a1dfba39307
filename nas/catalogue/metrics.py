"""Every metric: its unit, its direction, when it is known and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["minimize", "maximize"]
Known: TypeAlias = Literal["before training", "at each rung", "measured"]


@dataclass(frozen=True)
class Metric:
    """A named measurable."""

    name: str
    unit: str
    direction: Direction
    known: Known
    description: str
    scale: Literal["linear", "log"] = "linear"
    searchable: bool = True
    """Whether a job may optimise or bound it."""

    @property
    def cost(self) -> bool:
        """Whether it is a price (known from the architecture), not a quality (from training)."""
        return self.known != "at each rung"


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("loss", "nats per token", "minimize", "at each rung", "Validation cross-entropy."),
        Metric("accuracy", "fraction", "maximize", "at each rung", "Validation accuracy."),
        Metric(
            "expected_depth",
            "layers per token",
            "minimize",
            "at each rung",
            "Layers executed per token, halting measured on the validation set.",
        ),
        Metric(
            "expected_flops",
            "FLOPs per batch",
            "minimize",
            "at each rung",
            "Forward pass of a validation batch as it was executed: between flops_low and flops.",
            "log",
        ),
        Metric(
            "effective_context",
            "tokens",
            "maximize",
            "at each rung",
            "The context length beyond which truncation no longer raises the validation loss.",
            "log",
        ),
        Metric("parameters", "count", "minimize", "before training", "Trainable scalars.", "log"),
        Metric(
            "non_embedding_parameters",
            "count",
            "minimize",
            "before training",
            "Trainable scalars without token and position embeddings and the output layer.",
            "log",
        ),
        Metric(
            "active_parameters",
            "count",
            "minimize",
            "before training",
            "Trainable scalars that one token meets: of a mixture, one expert.",
            "log",
        ),
        Metric(
            "unshared_parameters",
            "count",
            "minimize",
            "before training",
            "Trainable scalars that the layers would have if none shared its weights.",
            "log",
        ),
        Metric(
            "flops",
            "FLOPs per batch",
            "minimize",
            "before training",
            "Forward pass of the batch, the worst case where it depends on the data.",
            "log",
        ),
        Metric(
            "flops_low",
            "FLOPs per batch",
            "minimize",
            "before training",
            "Forward pass of the batch, the least that the data can lead to.",
            "log",
        ),
        Metric(
            "training_flops",
            "FLOPs per batch",
            "minimize",
            "before training",
            "Forward and backward pass of the batch, what is computed again included.",
            "log",
        ),
        Metric(
            "peak_memory_mb",
            "MB",
            "minimize",
            "before training",
            "Weights plus the most activations alive at once in an evaluation pass of the batch.",
            "log",
        ),
        Metric(
            "training_memory_mb",
            "MB",
            "minimize",
            "before training",
            "Weights, AdamW state and the most gradients and activations alive in a training step "
            "of the batch.",
            "log",
        ),
        Metric(
            "decoding_memory_mb",
            "MB",
            "minimize",
            "before training",
            "Weights plus the cache or state of one sequence of full length, decoded by tokens.",
            "log",
        ),
        Metric(
            "latency_ms",
            "ms per batch",
            "minimize",
            "measured",
            "One evaluation forward pass of the batch with one thread: predicted from the device's "
            "table while searching, measured for the front.",
            "log",
        ),
        Metric(
            "step_latency_ms",
            "ms per token",
            "minimize",
            "measured",
            "One decoding step of one sequence after full length with one thread, predicted and "
            "measured as latency_ms is; of causal models alone.",
            "log",
        ),
        Metric(
            "throughput",
            "tokens per second",
            "maximize",
            "measured",
            "Tokens of the batch over latency_ms.",
            "log",
        ),
        Metric(
            "energy_j",
            "J per sample",
            "minimize",
            "measured",
            "Energy of one evaluation pass by the machine's counters, where it has any.",
            "log",
            searchable=False,
        ),
    )
}
"""In the order in which they are shown. 1 MB is 10⁶ bytes."""
