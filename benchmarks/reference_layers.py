"""Layers of public packages with the weights of one of our modules.

Where a package offers no more than the mixing of heads, it gets the projections that ours has.

Shapes: B batch, N sequence, H heads, D width, E head width.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

# a module of ours, of which each layer knows its own attributes
Ours: TypeAlias = Any
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


class Projected(nn.Module):
    """The mixing of heads (B, H, N, E) → (B, H, N, E) between the projections of a module."""

    def __init__(self, ours: Ours, mix: Mix) -> None:
        super().__init__()
        self.heads = ours.heads
        self.qkv, self.out = copied(ours.qkv.weight), copied(ours.out.weight)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        B, N, _ = x.shape
        heads = self.qkv(x).view(B, N, -1, self.heads, x.shape[2] // self.heads)
        mixed = self.mix(*heads.permute(2, 0, 3, 1, 4).unbind())
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(B, N, -1))
        return y


class Wrapped(nn.Module):
    """A layer of a package with what it needs around it; ``out`` if it has no such projection."""

    def __init__(
        self, layer: nn.Module, run: Callable[[Tensor], Tensor], out: Tensor | None = None
    ) -> None:
        super().__init__()
        self.layer, self.run = layer, run
        self.out = nn.Identity() if out is None else copied(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        y: Tensor = self.out(self.run(x))
        return y


def copied(weight: Tensor) -> nn.Linear:
    """A projection without bias that has this weight."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.detach().clone())
    return linear


def copy_to(layer: nn.Module, ours: Ours, *names: str) -> None:
    """Replace the layer's projections to queries, keys and values by ours, without biases."""
    for name, weight in zip(names, ours.qkv.weight.chunk(len(names)), strict=True):
        setattr(layer, name, copied(weight))


def sdpa(ours: Ours) -> nn.Module:
    """PyTorch's fused full attention."""

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=ours.causal)

    return Projected(ours, mix)


def roberta(ours: Ours) -> nn.Module:
    """RoBERTa's attention in transformers, by products and a softmax."""
    parts = _transformers("roberta")
    config = _config("RobertaConfig", ours)
    config._attn_implementation = "eager"
    layer = parts.RobertaSelfAttention(config)
    copy_to(layer, ours, "query", "key", "value")
    return Wrapped(layer, lambda x: layer(x)[0], ours.out.weight)


def longformer(ours: Ours) -> nn.Module:
    """The sliding chunks of transformers, global positions included."""
    window, leading = ours.spec.window, ours.spec.globals
    parts = _transformers("longformer")
    config = _config("LongformerConfig", ours, attention_window=[2 * window])
    layer = parts.LongformerSelfAttention(config, 0)
    copy_to(layer, ours, "query", "key", "value")
    if leading:
        for name, weight in zip(
            ("query_global", "key_global", "value_global"),
            ours.global_qkv.weight.chunk(3),
            strict=True,
        ):
            setattr(layer, name, copied(weight))

    def run(x: Tensor) -> Tensor:
        first = torch.arange(x.shape[1]).expand(x.shape[:2]) < leading
        y: Tensor = layer(
            x,
            attention_mask=10000.0 * first.to(x.dtype),
            is_index_masked=torch.zeros_like(first),
            is_index_global_attn=first,
            is_global_attn=leading > 0,
        )[0]
        return y

    return Wrapped(layer, run, ours.out.weight)


def local_attention(ours: Ours) -> nn.Module:
    """The windows of local-attention, cut to the exact width; without global positions.

    N is to be a multiple of the window: what it pads in encoders is seen.
    """
    package = importlib.import_module("local_attention")
    mix = package.LocalAttention(
        ours.spec.window,
        causal=ours.causal,
        exact_windowsize=True,
        use_rotary_pos_emb=False,
    )
    return Projected(ours, mix)


def linformer(ours: Ours) -> nn.Module:
    """The layer of linformer; it projects all positions before it shortens them."""
    package = importlib.import_module("linformer.linformer")
    D, K = ours.qkv.in_features, ours.spec.rank
    layer = package.LinformerSelfAttention(D, ours.max_length, k=K, heads=ours.heads)
    copy_to(layer, ours, "to_q", "to_k", "to_v")
    layer.to_out = copied(ours.out.weight)
    shorten = ours.shorten.detach().transpose(1, 2).clone()
    layer.proj_k, layer.proj_v = (nn.Parameter(t) for t in shorten.unbind())
    return layer  # type: ignore[no-any-return]


def nystrom_attention(ours: Ours) -> nn.Module:
    """The layer of nystrom-attention."""
    package = importlib.import_module("nystrom_attention")
    spec = ours.spec
    layer = package.NystromAttention(
        ours.qkv.in_features,
        ours.head_width,
        ours.heads,
        num_landmarks=spec.landmarks,
        pinv_iterations=spec.iterations,
        residual=spec.kernel > 0,
        residual_conv_kernel=max(spec.kernel, 1),
    )
    layer.to_qkv, layer.to_out = copied(ours.qkv.weight), copied(ours.out.weight)
    if spec.kernel:
        _copy_kernel(layer.res_conv, ours)
    return layer  # type: ignore[no-any-return]


def nystromformer(ours: Ours) -> nn.Module:
    """Nyströmformer's attention in transformers."""
    spec = ours.spec
    parts = _transformers("nystromformer")
    config = _config(
        "NystromformerConfig",
        ours,
        num_landmarks=spec.landmarks,
        segment_means_seq_len=ours.max_length,
        conv_kernel_size=max(spec.kernel, 1),
    )
    layer = parts.NystromformerSelfAttention(config)
    copy_to(layer, ours, "query", "key", "value")
    layer.iterative_inv = partial(layer.iterative_inv, n_iter=spec.iterations)
    if spec.kernel:
        _copy_kernel(layer.conv, ours)
    else:
        layer.conv_kernel_size = None
        del layer.conv
    return Wrapped(layer, lambda x: layer(x)[0], ours.out.weight)


def performer(ours: Ours) -> nn.Module:
    """FAVOR+ of performer-pytorch with our features; it adds 1e-4 to each of them."""
    package = importlib.import_module("performer_pytorch")
    with contextlib.redirect_stdout(io.StringIO()):  # says that it has no CUDA
        mix = package.FastAttention(
            ours.head_width, nb_features=ours.spec.features, causal=ours.causal
        )
    mix.projection_matrix.copy_(ours.omega)
    return Projected(ours, mix)


def linear_attention(ours: Ours) -> nn.Module:
    """Linear attention of linear-attention-transformer."""
    package = importlib.import_module("linear_attention_transformer.linear_attention_transformer")

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not ours.causal:
            return package.linear_attn(q, k, v)  # type: ignore[no-any-return]
        # in buckets, as it is meant to be used; the sums are then of earlier buckets alone
        bucket = min(64, q.shape[2])
        return package.causal_linear_attn(  # type: ignore[no-any-return]
            q, k, v, bucket_size=bucket
        )

    return Projected(ours, mix)


def lsh(ours: Ours) -> nn.Module:
    """Hashing of reformer-pytorch in buckets of our chunks."""
    package = importlib.import_module("reformer_pytorch")
    D, spec = ours.qkv.in_features, ours.spec
    layer = package.LSHSelfAttention(
        D, ours.heads, bucket_size=spec.chunk, n_hashes=spec.hashes, causal=ours.causal
    )
    copy_to(layer, ours, "toqk", "tov")
    layer.to_out = copied(ours.out.weight)
    return layer  # type: ignore[no-any-return]


def sinkhorn(ours: Ours) -> nn.Module:
    """The layer of sinkhorn-transformer, which sorts as ours does but for noise.

    When causal, each block sees one earlier block, and half of the heads are shifted.
    """
    package = importlib.import_module("sinkhorn_transformer.sinkhorn_transformer")
    D, spec = ours.qkv.in_features, ours.spec
    layer = package.SinkhornSelfAttention(
        D,
        spec.block,
        ours.max_length,
        heads=ours.heads,
        causal=ours.causal,
        non_permutative=False,
        sinkhorn_iter=spec.iterations,
        temperature=spec.temperature,
    )
    w_q, w_kv = ours.qkv.weight.split([D, 2 * D])
    layer.to_q, layer.to_kv, layer.to_out = copied(w_q), copied(w_kv), copied(ours.out.weight)
    return layer  # type: ignore[no-any-return]


def bigbird(ours: Ours) -> nn.Module:
    """Block-sparse BigBird of transformers; out of training it has no random blocks."""
    parts, spec = _transformers("big_bird"), ours.spec
    config = _config("BigBirdConfig", ours, block_size=spec.block, num_random_blocks=spec.random)
    config.use_bias = False
    layer = parts.BigBirdBlockSparseAttention(config, seed=0)
    copy_to(layer, ours, "query", "key", "value")
    make_masks = parts.BigBirdModel.create_masks_for_block_sparse_attn

    def run(x: Tensor) -> Tensor:
        blocked, band, queries, keys = make_masks(torch.ones_like(x[..., 0]), spec.block)
        y: Tensor = layer(x, band, queries, keys, blocked, blocked)[0]
        return y

    return Wrapped(layer, run, ours.out.weight)


def x_transformers(ours: Ours) -> nn.Module:
    """Attention of x-transformers, which may be given a memory, over PyTorch's fused kernel."""
    package = importlib.import_module("x_transformers.x_transformers")
    layer = package.Attention(
        ours.qkv.in_features,
        dim_head=ours.head_width,
        heads=ours.heads,
        causal=ours.causal,
        flash=True,
    )
    copy_to(layer, ours, "to_q", "to_k", "to_v")
    layer.to_out = copied(ours.out.weight)
    return layer  # type: ignore[no-any-return]


def blocks_alone(ours: Ours) -> nn.Module:
    """Blocks of local-attention that see themselves alone: one permutation of BlockBERT's."""
    package = importlib.import_module("local_attention")
    block = ours.spec.size(ours.max_length)
    mix = package.LocalAttention(block, look_backward=0, look_forward=0, use_rotary_pos_emb=False)
    return Projected(ours, mix)


def _copy_kernel(convolution: nn.Conv2d, ours: Ours) -> None:
    kernel = ours.kernel.detach().clone()
    convolution.weight = nn.Parameter(kernel.view_as(convolution.weight))


def _transformers(model: str) -> Any:
    return importlib.import_module(f"transformers.models.{model}.modeling_{model}")


def _config(name: str, ours: Ours, **settings: Any) -> Any:
    make = getattr(importlib.import_module("transformers"), name)
    return make(
        hidden_size=ours.qkv.in_features,
        num_attention_heads=ours.heads,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=ours.max_length,
        **settings,
    )
