"""The FLOPs that a trained model really does on held-out data.

Shapes: B batch, N sequence, S keys, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from nas.measure.flops import UNKNOWN
from nas.models import Transformer
from nas.tasks.base import Batch


@torch.no_grad()
def expected_flops(model: Transformer, batches: Iterable[Batch]) -> float:
    """FLOPs of an evaluation pass, mean over batches on the model's device, which is left as it is.

    Layers that are run for nobody count as little as experts that nobody is sent to; what is run
    counts for the whole batch, padding and halted positions included.
    """
    counted: list[int] = []
    for batch in batches:
        with ExecutedFlops() as executed:
            model(batch.tokens, batch.mask)
        counted.append(executed.total)
    return sum(counted) / len(counted)


class ExecutedFlops(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Within it, ``total`` counts the FLOPs of matrix products, as ``count_flops`` sees them.

    Fused attention stays fused and is counted by its shape: the MATH back end would hold the
    weights of a long sequence, which the model itself never does.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Of queries (B, H, N, E), however many of the H share keys and values (…, S, E)."""
    B, H, N, E = query
    return 2 * B * H * N * key[-2] * (E + value[-1])


_FUSED = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
    torch.ops.aten._scaled_dot_product_attention_math_for_mps,
)
_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    **{op: shape_wrapper(formula) for op, formula in UNKNOWN.items()},  # type: ignore[no-untyped-call]
    **{op: shape_wrapper(_attention) for op in _FUSED},  # type: ignore[no-untyped-call]
}
