"""`make bench-training`: tokens per second of our loop against a hand-written one, and the peak.

Both train the same model from the same weights on the same task, one thread, interleaved in one
run. The machine's peak is the best of square fp32 matrix products in the same process; the
fraction of it counts the model's own matrix products, forward and twice as many backward.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from nas.catalogue.tasks import TextLM
from nas.schemas import TrainingRecipe
from nas.tasks import build_task
from nas.tasks.base import Task
from nas.training.loop import Trainer, initial_model
from search_spaces import Architecture
from search_spaces.model_cost import model_cost

LENGTH = 512
BATCH = 8


def architecture(width: int, attention: str) -> Architecture:
    """Two layers with heads of 32."""
    layer = {
        "attention": {"type": attention},
        "feedforward": {"type": "dense"},
        "heads": width // 32,
    }
    return Architecture.model_validate({"width": width, "layers": [layer, layer]})


def ours(arch: Architecture, task: Task, steps: int) -> float:
    """Seconds of our loop."""
    recipe = TrainingRecipe(batch_size=BATCH)
    trainer = Trainer(arch, task, recipe, max_steps=10_000, seed=0, device=torch.device("cpu"))
    trainer.run(3)
    began = time.process_time()
    trainer.run(3 + steps)
    return time.process_time() - began


def hand_written(arch: Architecture, task: Task, steps: int) -> float:
    """Seconds of the loop that one would write in a notebook."""
    model = initial_model(arch, task, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_function = nn.CrossEntropyLoss()
    began = 0.0
    for step in range(3 + steps):
        if step == 3:
            began = time.process_time()
        batch = task.training_batch(step, BATCH, 0)
        logits = model(batch.tokens).logits
        loss = loss_function(logits.reshape(-1, logits.shape[-1]), batch.targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.process_time() - began


def peak_gflops() -> float:
    """The best rate of fp32 matrix products on one core."""
    best = 0.0
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    for _ in range(12):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began) / 1e9)
    return best


def main() -> None:
    """One row a width and attention."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        task = build_task(TextLM(sequence_length=LENGTH), dataset=None, cache=Path(cache))
        print(f"batch {BATCH} x {LENGTH} tokens, 2 layers, 1 thread; ratio: ours to hand-written")
        print("| width | attention | tokens/s | ratio | of the matmul peak |")
        print("|-------|-----------|----------|-------|--------------------|")
        for width in (64, 128, 256):
            for attention in ("full", "linear"):
                row(architecture(width, attention), task, options.steps, options.rounds)


def row(arch: Architecture, task: Task, steps: int, rounds: int) -> None:
    """Measure one architecture both ways in turn and print its row."""
    ratios, seconds, peaks = [], [], []
    for _ in range(rounds):
        mine, theirs = ours(arch, task, steps), hand_written(arch, task, steps)
        seconds.append(mine / steps)
        ratios.append(theirs / mine)
        peaks.append(peak_gflops())
    shape = task.shape
    flops = model_cost(
        arch,
        batch_size=BATCH,
        sequence_length=LENGTH,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
    ).flops
    each = statistics.median(seconds)
    fraction = 3 * flops / each / 1e9 / max(peaks)
    kind = arch.layers[0].attention.type
    print(
        f"| {arch.width:>5} | {kind:<9} | {BATCH * LENGTH / each:>8.0f} | "
        f"{statistics.median(ratios):>5.2f} | {fraction:>18.0%} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
