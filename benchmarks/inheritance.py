"""`make bench-inheritance`: what a child gains by its parent's weights, and what it tells then.

Pairs of a parent, trained in full, and a child by one or two mutations. The child is trained rung
by rung twice, with the same seed and data: from scratch and from its parent's weights. A rung
serves a search by how well it ranks the children as their full training from scratch does; what is
ranked are their losses relative to what their size lets expect.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from nas.catalogue.tasks import TextLM
from nas.schemas import Fidelity, TrainingRecipe
from nas.tasks import Task, build_task
from nas.training.segment import Parent, Segment, run_segment
from search_spaces import Architecture, load_space

SPACE, LENGTH, SEED = "survey-lm", 128, 11
WAYS = ("scratch", "parent")

Losses = dict[str, list[float]]
"""At each rung, by what a child started from."""


def pairs(count: int) -> list[tuple[Architecture, Architecture]]:
    """Parents and children."""
    space, rng = load_space(SPACE), random.Random(SEED)
    found = []
    while len(found) < count:
        parent = space.sample(rng, rng.choice((1, 2, None)))
        child = space.mutate(parent, rng, None)
        if rng.random() < 0.5:
            child = space.mutate(child, rng, None)
        if child.fingerprint() != parent.fingerprint():
            found.append((parent, child))
    return found


def trained(
    parent: Architecture, child: Architecture, task: Task, rungs: Sequence[int], folder: Path
) -> Losses:
    """The child's losses at each rung, both ways."""
    recipe = TrainingRecipe(evaluation_batches=8)
    grown = Segment(parent, recipe, rungs[-1], rungs[-1], SEED, folder / "parent.pt")
    run_segment(grown, task)
    losses: Losses = {}
    for way in WAYS:
        segment = replace(grown, architecture=child, checkpoint=folder / f"{way}.pt")
        if way == "parent":
            segment = replace(segment, parent=Parent("parent", parent, grown.checkpoint))
        losses[way] = [
            run_segment(replace(segment, to_steps=steps), task).metrics["loss"] for steps in rungs
        ]
    return losses


def beyond_size(losses: Sequence[float], archs: Sequence[Architecture]) -> np.ndarray:
    """What is left of the losses when a line over the logarithm of the size is taken off."""
    size = np.log([arch.width**2 * arch.depth for arch in archs])
    line = np.polyfit(size, losses, 1)
    return np.asarray(losses - np.polyval(line, size))


def main() -> None:
    """Train the pairs, print a line for each rung."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=135)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rungs = Fidelity(max_steps=options.steps, min_steps=max(1, options.steps // 9)).rungs()
    task_config = TextLM(sequence_length=LENGTH)
    children, seen = [], []
    with tempfile.TemporaryDirectory() as folder:
        task = build_task(task_config, dataset=None, cache=Path(folder) / "cache")
        for i, (parent, child) in enumerate(pairs(options.pairs)):
            own = Path(folder) / str(i)
            own.mkdir()
            seen.append(trained(parent, child, task, rungs, own))
            children.append(child)
    final = beyond_size([losses["scratch"][-1] for losses in seen], children)
    print("| steps | from    | median loss | less than from scratch | Kendall with the end |")
    print("|-------|---------|-------------|------------------------|----------------------|")
    for rung, steps in enumerate(rungs):
        for way in WAYS:
            losses = [each[way][rung] for each in seen]
            less = sum(a < each["scratch"][rung] for a, each in zip(losses, seen, strict=True))
            tau = kendalltau(beyond_size(losses, children), final).statistic
            better = f"{less} of {len(seen)}" if way == "parent" else ""
            print(
                f"| {steps:>5} | {way:<7} | {statistics.median(losses):>11.3f} | {better:>22} "
                f"| {tau:>20.2f} |"
            )


if __name__ == "__main__":
    main()
