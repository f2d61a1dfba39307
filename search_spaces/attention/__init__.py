"""Attention (token mixing) mechanisms, one spec per file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from search_spaces.attention.base import AttentionSpec
from search_spaces.attention.bigbird import BigBirdAttention
from search_spaces.attention.blockbert import BlockBertAttention
from search_spaces.attention.cascade import CascadeAttention
from search_spaces.attention.fixed import FixedAttention
from search_spaces.attention.full import FullAttention
from search_spaces.attention.gated_linear import GatedLinearAttention
from search_spaces.attention.linear import LinearAttention
from search_spaces.attention.linformer import LinformerAttention
from search_spaces.attention.longformer import LongformerAttention
from search_spaces.attention.nystromformer import NystromformerAttention
from search_spaces.attention.performer import PerformerAttention
from search_spaces.attention.reformer import ReformerAttention
from search_spaces.attention.sinkhorn import SinkhornAttention
from search_spaces.attention.strided import StridedAttention
from search_spaces.attention.synthesizer import SynthesizerAttention
from search_spaces.attention.transformer_xl import TransformerXLAttention
from search_spaces.registry import by_name

ATTENTION = by_name(
    FullAttention,
    LongformerAttention,
    LinformerAttention,
    PerformerAttention,
    LinearAttention,
    NystromformerAttention,
    ReformerAttention,
    SynthesizerAttention,
    GatedLinearAttention,
    SinkhornAttention,
    CascadeAttention,
    TransformerXLAttention,
    StridedAttention,
    FixedAttention,
    BlockBertAttention,
    BigBirdAttention,
)

if TYPE_CHECKING:
    AnyAttention = AttentionSpec
else:
    AnyAttention = Annotated[ATTENTION.union(), Field(discriminator="type")]
