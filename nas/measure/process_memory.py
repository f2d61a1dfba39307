"""The memory that a model really takes, in a process of its own.

What the process holds before the model is there, the kernels being loaded, is taken off. Kernels'
scratch is part of what is measured; of the arithmetic it is where it is large, in convolutions.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import psutil
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from nas.catalogue.tasks import TaskShape
from nas.errors import Unsupported
from nas.models import Transformer, build_model
from nas.training.objectives import training_loss
from nas.training.optimizer import build_optimizer
from search_spaces.architecture import Architecture
from search_spaces.model_cost import MEGABYTE

STEPS = 2
"""Training steps: the first makes the optimizer's state, the next one has it from the start."""

FEW = 2
"""Sequences of the passes that load the kernels before anything is measured."""

GIVEN_BACK = {
    "MALLOC_ARENA_MAX": "1",
    # freed blocks go back to the system at once, so that the process is no larger than what it uses
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
}
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
PEAK_RESET = "5"


class Run(BaseModel):
    """What is to be measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture
    batch_size: int
    sequence_length: int
    vocab_size: int
    num_outputs: int
    causal: bool
    head: Literal["token", "pooled"]
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"


def measure_memory(
    arch: Architecture,
    shape: TaskShape,
    batch_size: int,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "cpu",
) -> dict[str, float]:
    """``peak_memory_mb`` and ``training_memory_mb`` as a fresh process has them.

    Random tokens and targets; halting and experts do with them what they do with untrained weights,
    so less may be held than the arithmetic's worst case.

    Raises:
        Unsupported: the process failed, as one does that runs out of memory.
    """
    run = Run(
        architecture=arch,
        batch_size=batch_size,
        sequence_length=shape.sequence_length,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
        precision=precision,
        device=device,
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", __name__],
        input=run.model_dump_json(),
        env={**os.environ, **GIVEN_BACK},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unsupported(f"memory was not measured: {done.stderr.strip()[-500:]}")
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


class _Meter:
    """Bytes that a device, or this process, holds beyond what it held at first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first = self._now()

    @contextmanager
    def peak(self, into: dict[str, float], name: str) -> Iterator[None]:
        """Note the most that is held within."""
        self._reset()
        yield
        into[name] = (self._most() - self.first) / MEGABYTE

    def _now(self) -> int:
        gc.collect()
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return int(psutil.Process().memory_info().rss)

    def _reset(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif RESET.exists():
            RESET.write_text(PEAK_RESET)

    def _most(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if STATUS.exists():
            # what getrusage tells includes the peak of the process that started this one
            lines = STATUS.read_text().splitlines()
            peak = next(line for line in lines if line.startswith("VmHWM:"))
            return int(peak.split()[1]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _measure(run: Run) -> dict[str, float]:
    found: dict[str, float] = {}
    # of full length: libraries have other code for large products, and room of their own
    few = run.model_copy(update={"batch_size": min(FEW, run.batch_size)})
    for use in (_evaluate, _train):
        use(few)
    meter = _Meter(torch.device(run.device))
    with meter.peak(found, "peak_memory_mb"):
        _evaluate(run)
    with meter.peak(found, "training_memory_mb"):
        _train(run)
    return found


def _evaluate(run: Run) -> None:
    net, tokens = _model(run)
    net.eval()
    with torch.no_grad(), _precision(run):
        net(tokens)


def _train(run: Run) -> None:
    net, tokens = _model(run)
    net.train()
    optimizer = build_optimizer(
        net, width=run.architecture.width, learning_rate=1e-3, weight_decay=0.0
    )
    for _ in range(STEPS):
        with _precision(run):
            out = net(tokens)
        targets = torch.randint(run.num_outputs, out.logits.shape[:-1], device=tokens.device)
        loss = training_loss(out, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _model(run: Run) -> tuple[Transformer, Tensor]:
    net = build_model(
        run.architecture,
        vocab_size=run.vocab_size,
        num_outputs=run.num_outputs,
        max_length=run.sequence_length,
        causal=run.causal,
        head=run.head,
    ).to(run.device)
    shape = run.batch_size, run.sequence_length
    return net, torch.randint(run.vocab_size, shape, device=run.device)


def _precision(run: Run) -> AbstractContextManager[object]:
    if run.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(run.device).type, dtype=torch.bfloat16)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps(_measure(Run.model_validate_json(sys.stdin.read()))))
