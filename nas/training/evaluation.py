"""What is measured of a trained model beside what it loses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from nas.measure.effective_context import effective_context
from nas.measure.expected_flops import expected_flops
from nas.models import Transformer
from nas.schemas import TrainingRecipe
from nas.tasks.base import HeldOut, Task
from nas.training.failures import memory_failures
from search_spaces.model_cost import model_cost

COUNTED_BATCHES = 2
CONTEXT_TARGETS = 256
"""Of windows of 256 bytes of Python source: the contexts that disjoint samples of so many tell lie
within half an octave of each other, of half as many within one."""
CONTEXT_LAST = 8
"""At most so many targets of a window are scored, where the split has few."""


def precision(recipe: TrainingRecipe, device: torch.device) -> AbstractContextManager[object]:
    """In which a recipe's model computes."""
    if recipe.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def executed_flops(
    model: Transformer, task: Task, recipe: TrainingRecipe, split: HeldOut, device: torch.device
) -> float:
    """FLOPs of an evaluation pass of a batch of full size and length, as it is executed.

    Where they depend on the data they are counted on two batches of the split (one, where no more
    are evaluated), filled up with padding, without what a model remembers of other segments:
    between ``flops_low`` and ``flops``.
    """
    shape, size = task.shape, recipe.batch_size
    cost = model_cost(
        model.arch,
        batch_size=size,
        sequence_length=shape.sequence_length,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
    )
    if cost.flops_low == cost.flops:
        return float(cost.flops)
    count = min(COUNTED_BATCHES, recipe.evaluation_batches)
    batches = task.evaluation_batches(split, size, count)
    with memory_failures("counting what is executed"), precision(recipe, device):
        return expected_flops(
            model, (batch.filled(size, shape.sequence_length).to(device) for batch in batches)
        )


def context_used(
    model: Transformer,
    task: Task,
    recipe: TrainingRecipe,
    device: torch.device,
    should_stop: Callable[[], bool],
) -> float | None:
    """Tokens of context that a model of a text uses; None if stopped.

    Measured on the last target of 256 validation windows spread over the split; on some more of
    each where there are fewer windows.

    Raises:
        Unsupported: the task has not one target for each position.
        TrialFailed: memory is short.
    """
    size = recipe.batch_size
    batches = task.evaluation_batches("validation", size, max(1, CONTEXT_TARGETS // size))
    windows = [batch.to(device) for batch in batches]
    count = sum(len(batch.tokens) for batch in windows)
    last = min(CONTEXT_LAST, task.shape.sequence_length, max(1, CONTEXT_TARGETS // count))
    with memory_failures("measuring the context"), precision(recipe, device):
        return effective_context(model, windows, last=last, should_stop=should_stop)
