"""Our mechanisms beside public implementations with the same weights, outputs and gradients."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import reference_layers as layers
from benchmarks.reference_layers import Projected
from benchmarks.references import REFERENCES
from nas.models import build_attention
from nas.models.attention.base import Attention
from nas.models.attention.sinkhorn import balance

D, H, N = 32, 2, 96

SAME = [
    ("full", {}, "torch SDPA", False, 1e-12),
    ("full", {}, "torch SDPA", True, 1e-12),
    ("full", {}, "transformers RoBERTa", False, 1e-12),
    # its softmax is of single precision
    ("longformer", {"window": 16, "globals": 0}, "transformers Longformer", False, 2e-6),
    ("longformer", {"window": 16, "globals": 1}, "transformers Longformer", False, 2e-6),
    ("longformer", {"window": 24, "globals": 4}, "transformers Longformer", False, 2e-6),
    ("longformer", {"window": 32, "globals": 0}, "local-attention", False, 1e-12),
    ("longformer", {"window": 32}, "local-attention", True, 1e-12),
    ("cascade", {"window": 12}, "local-attention", False, 1e-12),
    ("cascade", {"window": 12}, "local-attention", True, 1e-12),
    ("linformer", {"rank": 16}, "linformer", False, 1e-12),
]


def built(spec: dict[str, Any], causal: bool, heads: int = H) -> Attention[Any]:
    torch.manual_seed(0)
    return build_attention(spec, d_model=D, heads=heads, max_length=N, causal=causal).double()


def compare(ours: Attention[Any], theirs: nn.Module, tolerance: float, batch: int = 2) -> None:
    """Outputs, and gradients of the inputs and of the last projection."""
    theirs.double()
    x = torch.randn(batch, N, D, dtype=torch.float64, requires_grad=True)
    mine, other = ours(x), theirs(x)
    torch.testing.assert_close(mine, other, rtol=0, atol=tolerance)
    assert float(mine.detach().std()) > 0.01
    for one, two in zip(
        torch.autograd.grad(mine.sin().sum(), (x, ours.out.weight)),
        torch.autograd.grad(other.sin().sum(), (x, last_weight(theirs))),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=50 * tolerance)


def last_weight(layer: nn.Module) -> Tensor:
    parameters = dict(layer.named_parameters())
    weights = [p for name, p in parameters.items() if "out" in name]
    assert len(weights) == 1, list(parameters)
    return weights[0]


@pytest.mark.parametrize(("name", "settings", "other", "causal", "tolerance"), SAME, ids=str)
def test_same_weights_give_the_same(
    name: str, settings: dict[str, Any], other: str, causal: bool, tolerance: float
) -> None:
    (reference,) = (r for r in REFERENCES[name] if r.name == other)
    ours = built({"type": name, **settings}, causal)
    compare(ours, reference.build(ours), tolerance)


@pytest.mark.parametrize("kernel", [0, 33])
def test_nystrom_attention(kernel: int) -> None:
    spec = {"type": "nystromformer", "landmarks": 16, "kernel": kernel}
    # its first guess at the inverse has a maximum over all heads and sequences: here there is one
    ours = built(spec, False, heads=1)
    compare(ours, layers.nystrom_attention(ours), 1e-10, batch=1)
    # with several, both arrive at the same inverse
    ours = built({**spec, "iterations": 24}, False)
    compare(ours, layers.nystrom_attention(ours), 1e-8)


@pytest.mark.parametrize("kernel", [0, 33])
def test_nystromformer_of_transformers(kernel: int) -> None:
    spec = {"type": "nystromformer", "landmarks": 16, "kernel": kernel}
    ours = built(spec, False, heads=1)
    compare(ours, layers.nystromformer(ours), 1e-10, batch=1)
    ours = built({**spec, "iterations": 24}, False)
    compare(ours, layers.nystromformer(ours), 1e-8)


@pytest.mark.parametrize("causal", [False, True])
def test_performer_pytorch(causal: bool) -> None:
    """With our features, and without the number that it adds to them."""
    package = importlib.import_module("performer_pytorch.performer_pytorch")
    ours = built({"type": "performer", "features": 64}, causal)

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kernel = partial(package.softmax_kernel, projection_matrix=ours.omega, eps=0.0)
        features = kernel(q, is_query=True), kernel(k, is_query=False)
        if causal:
            return package.causal_linear_attention_noncuda(*features, v, eps=0.0)
        return package.linear_attention(*features, v)

    compare(ours, Projected(ours, mix), 1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_of_performer_pytorch(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = importlib.import_module("performer_pytorch.performer_pytorch")
    ours = built({"type": "linear"}, causal)
    monkeypatch.setattr(type(ours), "epsilon", 0.0)

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        features = functional.elu(q) + 1, functional.elu(k) + 1
        if causal:
            return package.causal_linear_attention_noncuda(*features, v, eps=0.0)
        return package.linear_attention(*features, v)

    compare(ours, Projected(ours, mix), 1e-10)


def test_linear_attention_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its features are exponentials: those of our features' logarithms are ours.

    In buckets of one position, which see themselves; the scale of a query cancels.
    """
    package: Any = importlib.import_module(
        "linear_attention_transformer.linear_attention_transformer"
    )
    ours = built({"type": "linear"}, True)
    monkeypatch.setattr(type(ours), "epsilon", 0.0)

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = ((functional.elu(t) + 1).log() for t in (q, k))
        return package.causal_linear_attn(q, k, v, bucket_size=1, eps=0.0)

    compare(ours, Projected(ours, mix), 1e-10)


def test_sinkhorn_transformer() -> None:
    """With the order of our sorting. Where values should be sorted, it puts the sorted keys."""
    ours = built({"type": "sinkhorn", "block": 16}, False)
    with torch.no_grad():
        _, w_k, w_v = ours.qkv.weight.chunk(3)
        w_v.copy_(w_k)
    theirs: Any = layers.sinkhorn(ours)

    class Order(nn.Module):
        def forward(self, q: Tensor, k: Tensor, **rest: Any) -> Tensor:
            q, k = (t.unflatten(1, (-1, 16)) for t in (q, k))
            return ours.sort(q, k, torch.ones(q.shape[:3], dtype=q.dtype))

    theirs.sinkhorn_attention.sort_net = Order()
    compare(ours, theirs, 1e-10)


def test_sinkhorn_iterations() -> None:
    """It begins with rows, ours with columns: each is the other's transpose."""
    package = importlib.import_module("sinkhorn_transformer.sinkhorn_transformer")
    logits = torch.randn(4, 7, 7, dtype=torch.float64)
    visible = torch.ones_like(logits, dtype=torch.bool)
    mine = balance(logits, visible, 5, False)
    other = package.sinkhorn_sorting_operator(logits.mT, 5).mT
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_reformer_pytorch() -> None:
    """With our buckets, and its options that say what the paper does.

    It adds 1e-9 to how often a pair meets, and ours a thousandth to the length of keys, squared.
    """
    ours = built({"type": "reformer", "chunk": 16, "hashes": 4}, False)
    layer = unscaled(ours)
    layer.lsh_attn._attend_across_buckets = False
    layer.lsh_attn._allow_duplicate_attention = False

    def hashed(n_buckets: int, vectors: Tensor, **rest: Any) -> Tensor:
        qk = vectors.detach().view(-1, H, N, D // H).transpose(1, 2)
        found = ours._buckets(qk).long()  # (R, B, N, H)
        count = int(found.max()) + 1
        found += count * torch.arange(found.shape[0]).view(-1, 1, 1, 1)
        return found.permute(1, 3, 0, 2).reshape(vectors.shape[0], -1)

    layer.lsh_attn.hash_vectors = hashed
    compare(ours, layer, 1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_reformer_pytorch_in_one_bucket(causal: bool) -> None:
    ours = built({"type": "reformer", "chunk": 128, "hashes": 1}, causal)
    layer = unscaled(ours)
    layer.use_full_attn = True
    compare(ours, layer, 1e-6)


def unscaled(ours: Attention[Any]) -> Any:
    """The layer of reformer-pytorch, which divides scores by √E, with queries √E times as long."""
    layer: Any = layers.lsh(ours)
    with torch.no_grad():
        layer.toqk.weight.mul_((D // H) ** 0.5)
    return layer
