"""Counting the bytes of tensors that are alive while a call runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Within it, ``live`` and ``peak`` count the bytes of storages that operations made.

    What existed before (weights, inputs) is not counted; a storage counts once however many
    tensors view it, until the last of them is gone. Scratch memory inside a kernel is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {id_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and id_of(tensor) not in before:
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def id_of(tensor: torch.Tensor) -> int:
    """The identity of the memory behind a tensor."""
    return int(tensor.untyped_storage()._cdata)


def allocated_peak(run: Callable[[], object]) -> int:
    """Most bytes that a call has of PyTorch's CPU memory at once, the scratch of kernels included.

    What there was before is not counted, and its end is not seen.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = profiled.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    changes.sort(key=itemgetter(0))
    return int(max(accumulate((size for _, size in changes), initial=0)))
