"""Norms against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.models.norms import EPSILON, build_norm
from search_spaces.architecture import NORMS, Norm


@pytest.mark.parametrize("kind", NORMS)
def test_equals_pytorch(kind: Norm) -> None:
    norm = build_norm(kind, 12).double()
    reference = {"layer_norm": nn.LayerNorm, "rms_norm": nn.RMSNorm}[kind](12, eps=EPSILON).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), reference(x), rtol=0, atol=1e-14)
    wanted = torch.autograd.grad(reference(x).sin().sum(), [x, *reference.parameters()])
    for g, w in zip(
        torch.autograd.grad(norm(x).sin().sum(), [x, *norm.parameters()]), wanted, strict=True
    ):
        torch.testing.assert_close(g, w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", NORMS)
def test_zero_is_finite(kind: Norm) -> None:
    x = torch.zeros(1, 2, 8, requires_grad=True)
    y = build_norm(kind, 8)(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
