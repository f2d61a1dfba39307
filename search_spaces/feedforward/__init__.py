"""Feed-forward mechanisms, one spec per file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.feedforward.convolution import ConvolutionFeedForward
from search_spaces.feedforward.dense import DenseFeedForward
from search_spaces.feedforward.gated import GatedFeedForward
from search_spaces.feedforward.mixture import MixtureFeedForward
from search_spaces.registry import by_name

FEEDFORWARD = by_name(
    DenseFeedForward, GatedFeedForward, MixtureFeedForward, ConvolutionFeedForward
)

if TYPE_CHECKING:
    AnyFeedForward = FeedForwardSpec
else:
    AnyFeedForward = Annotated[FEEDFORWARD.union(), Field(discriminator="type")]
