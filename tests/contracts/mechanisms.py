"""What the suites of mechanisms share: variants, inputs, and checks that do not ask of what kind.

Shapes: B batch, N sequence, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nas.measure.flops import count_flops
from nas.measure.memory import LiveBytes
from nas.measure.parameters import count_parameters
from search_spaces.cost import Cost
from search_spaces.values import Spec

B, D, H = 2, 16, 2
LONG = 150  # more than two blocks or chunks, and ragged
SHORT = 70

Run = Callable[[Tensor], Tensor]


def variants(spec: type[Spec], heads: int = H) -> Iterator[dict[str, Any]]:
    """The defaults, and the smallest and the largest value of every hyperparameter."""
    domains = {name: d.values for name, d in spec.hyperparameters().items()}
    if "queries_per_key" in domains:  # groups must divide the heads
        domains["queries_per_key"] = (1, heads)
    yield {"type": spec.name()}
    if domains:
        yield {"type": spec.name(), **{name: values[0] for name, values in domains.items()}}
        yield {"type": spec.name(), **{name: values[-1] for name, values in domains.items()}}


def inputs(N: int = LONG, *, dtype: torch.dtype = torch.float64, batch: int = B) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, N, D, generator=generator, dtype=torch.float64).to(dtype)


def padded() -> Tensor:
    """A mask of two sequences, the second with padding on its right."""
    return torch.arange(LONG).expand(B, LONG) < torch.tensor([[LONG], [SHORT]])


def holed() -> Tensor:
    """A mask with a hole in the first sequence and padding on the left of the second."""
    mask = torch.ones(B, LONG, dtype=torch.bool)
    mask[0, 20:90] = False
    mask[1, :80] = False
    return mask


def few_hidden(hidden: bool) -> Tensor:
    """A mask of which a few positions are hidden, or none is."""
    mask = torch.ones(B, LONG, dtype=torch.bool)
    mask[0, 3:7] = not hidden
    return mask


def refilled(x: Tensor, mask: Tensor) -> Tensor:
    """With other numbers where the mask hides them."""
    return torch.where(mask.unsqueeze(-1), x, 100 * torch.randn_like(x))


def equal(one: Tensor | None, other: Tensor | None, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def has_shape_and_type(run: Run, dtype: torch.dtype) -> None:
    y = run(inputs(dtype=dtype))
    assert y.shape == (B, LONG, D)
    assert y.dtype == dtype
    assert y.isfinite().all()


def all_parameters_learn(module: nn.Module, loss: Tensor) -> None:
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def gradients_stay_finite(module: nn.Module, loss: Tensor) -> None:
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def gradients_are_right(module: nn.Module, N: int, *rest: Any) -> None:
    """By finite differences, in inputs and parameters, with a hole: so that the masked form is
    taken in causal slots as well."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[1, 4:6] = False

    def run(x: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        y: Tensor = torch.func.functional_call(module, state, (x, mask, *rest))
        return y

    assert torch.autograd.gradcheck(run, (inputs(N).requires_grad_(), *parameters), fast_mode=True)


def never_looks_ahead(run: Run) -> None:
    """Outputs up to t do not move at all when later inputs change."""
    x = inputs()
    before = run(x)
    for t in (1, 64, 100, LONG - 1):
        changed = x.clone()
        changed[:, t:] = 10 * torch.randn_like(x[:, t:])
        assert torch.equal(run(changed)[:, :t], before[:, :t])


def ignores_batch_mates(run: Run) -> None:
    x = inputs(batch=3)
    equal(run(x), torch.cat([run(x[i : i + 1]) for i in range(3)]))


def seed_decides(build: Callable[[int], nn.Module]) -> None:
    first, again, other = (build(seed) for seed in (7, 7, 8))
    x = inputs(dtype=torch.float32)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert torch.equal(first(x), first(x))


def survives_safetensors(build: Callable[[int], nn.Module], folder: Path) -> None:
    module, other = build(1), build(2)
    save_file(module.state_dict(), folder / "weights.safetensors")
    other.load_state_dict(load_file(folder / "weights.safetensors"))
    x = inputs(dtype=torch.float32)
    assert torch.equal(module(x), other(x))


def continues(module: Any) -> None:
    """Pieces after each other give what one pass gives, gradients too; in fp64."""
    x = inputs().requires_grad_()
    whole = module(x)
    (wanted,) = torch.autograd.grad(whole.sin().sum(), x)
    state, pieces = module.init_state(B), []
    for piece in x.split([1, 70, 2, LONG - 73], dim=1):
        y, state = module.extend(piece, state)
        pieces.append(y)
    y = torch.cat(pieces, dim=1)
    equal(y, whole, 1e-10)
    (gradient,) = torch.autograd.grad(y.sin().sum(), x)
    equal(gradient, wanted, 1e-10)


def survives_autocast(run: Run) -> None:
    x = inputs(dtype=torch.float32).requires_grad_()
    exact = run(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run(x)
    rounded.float().square().sum().backward()
    error = (rounded.float() - exact).square().mean().sqrt() / exact.std()
    assert error < 0.05
    assert x.grad is not None
    assert x.grad.isfinite().all()


def holds_its_cost(module: nn.Module, x: Tensor, cost: Cost) -> None:
    assert cost.parameters == count_parameters(module)
    assert cost.flops_low <= cost.flops
    assert cost.flops == pytest.approx(count_flops(lambda: module(x)), rel=0.01)
    peak, saved = memory(module, x)
    assert cost.live_bytes == pytest.approx(peak, rel=0.1)
    assert cost.saved_bytes == pytest.approx(saved, rel=0.1)


def stays_within_its_cost(module: nn.Module, x: Tensor, cost: Cost) -> None:
    """Where the data decide how much is done: no more than the most, no less than the least."""
    assert cost.parameters == count_parameters(module)
    assert 0.99 * cost.flops_low <= count_flops(lambda: module(x)) <= 1.01 * cost.flops
    peak, saved = memory(module, x)
    assert peak <= 1.1 * cost.live_bytes
    assert saved <= 1.1 * cost.saved_bytes


def memory(module: nn.Module, x: Tensor) -> tuple[int, int]:
    """Bytes alive at most without gradients, and those kept for a backward pass."""
    with LiveBytes() as inference, torch.no_grad():
        module(x)
    x.requires_grad_()
    with LiveBytes() as training:
        y = module(x)
    return inference.peak, training.live - y.untyped_storage().nbytes()
