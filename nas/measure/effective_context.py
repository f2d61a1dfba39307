"""How much context a trained language model uses.

Shapes: B batch, N sequence, V vocabulary, S scored targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import Unsupported
from nas.tasks.base import IGNORED, Batch

TOLERANCE = 0.01
"""Of the loss with all of the context: a rise that counts as none."""
TOKENS_AT_ONCE = 1 << 14
"""In a pass, unless a given batch has more: small batches would cost more than their tokens do."""


class Rise(NamedTuple):
    """What a shorter context costs: the mean rise of the loss in nats, and its standard error."""

    mean: float
    error: float


@torch.no_grad()
def effective_context(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    last: int = 1,
    tolerance: float = TOLERANCE,
    should_stop: Callable[[], bool] = lambda: False,
) -> float | None:
    """The context length, in tokens, beyond which truncation no longer raises the loss.

    The targets of the ``last`` positions of each held-out window are predicted from the c tokens up
    to them alone, c = 1, 2, 4 … N - last + 1: the same targets for every c. The answer is the least
    c from which on the loss is within ``tolerance`` of the loss at the greatest c, or no further
    from it than the standard error of their paired differences: between the last power of two that
    is not and the next it is found by bisection, since the loss is taken to fall there.
    What is cut away is not replaced: a truncated window stands at the first positions. So what a
    model remembers of the windows before is left out, and the answer is at most their length.

    model: tokens (B, N) → an output whose ``logits`` are (B, N, V), causal, put in evaluation mode
    for the time.  batches: windows of one length on the model's device, with a target for each
    position; at least some hundred windows make a mean worth comparing.  should_stop: asked before
    each pass; the answer is None then.

    Raises:
        Unsupported: an encoder, one target for a whole sequence, padded windows, windows of several
            lengths, or none with a target.
    """
    if getattr(model, "causal", True) is False:
        raise Unsupported("an effective context is that of a causal model")
    given = list(batches)
    longest = _longest(given, last)
    at_once = max(TOKENS_AT_ONCE, *(batch.tokens.numel() for batch in given))
    windows = Batch(*(torch.cat([getattr(b, n) for b in given]) for n in ("tokens", "targets")))
    training = model.training
    model.eval()

    def losses(context: int) -> Tensor:
        return _losses(model, windows, context, last, at_once // context, should_stop)

    try:
        whole = losses(longest)
        if not len(whole):
            raise Unsupported("an effective context needs windows whose last targets count")
        allowed = tolerance * float(whole.mean())

        def costs_nothing(context: int) -> bool:
            rise = _rise(losses(context), whole)
            return rise.mean <= max(allowed, rise.error)

        return float(_least(_powers_of_two(longest), costs_nothing))
    except _Stopped:
        return None
    finally:
        model.train(training)


class _Stopped(Exception):
    """The caller wants no answer any more."""


def _longest(windows: Sequence[Batch], last: int) -> int:
    """The greatest context that all scored targets have."""
    if any(w.targets.dim() != 2 for w in windows):
        raise Unsupported("an effective context needs a target for each position")
    if any(w.mask is not None for w in windows):
        raise Unsupported("an effective context is measured on windows without padding")
    lengths = {w.tokens.shape[1] for w in windows}
    if len(lengths) != 1:
        raise Unsupported(f"windows of one length are needed, not of {sorted(lengths)}")
    (length,) = lengths
    if not 1 <= last <= length:
        raise Unsupported(f"between 1 and {length} targets of a window can be scored, not {last}")
    return length - last + 1


def _losses(
    model: nn.Module,
    windows: Batch,
    context: int,
    last: int,
    rows: int,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Nats of each scored target from so many tokens, (S,), in fp64; so many rows in a pass."""
    found = []
    count, N = windows.tokens.shape
    for first in range(0, count, rows):
        tokens, targets = (x[first : first + rows] for x in (windows.tokens, windows.targets))
        for end in range(N - last + 1, N + 1):
            if should_stop():
                raise _Stopped
            logits = model(tokens[:, end - context : end]).logits[:, -1]
            wanted = targets[:, end - 1]
            nats = functional.cross_entropy(
                logits.double(), wanted, ignore_index=IGNORED, reduction="none"
            )
            found.append(nats[wanted != IGNORED])
    return torch.cat(found)


def _rise(truncated: Tensor, whole: Tensor) -> Rise:
    """Paired: what makes a target hard makes it hard at both lengths."""
    difference = truncated - whole
    count = len(difference)
    error = float(difference.std()) / math.sqrt(count) if count > 1 else 0.0
    return Rise(float(difference.mean()), error)


def _powers_of_two(longest: int) -> list[int]:
    """1, 2, 4 … and the longest."""
    return [*(2**i for i in range((longest - 1).bit_length())), longest]


def _least(contexts: Sequence[int], costs_nothing: Callable[[int], bool]) -> int:
    """The least context that costs nothing, as do all greater ones of ``contexts``."""
    good = contexts[-1]
    bad = 0
    for context in reversed(contexts[:-1]):
        if not costs_nothing(context):
            bad = context
            break
        good = context
    while good - bad > 1:
        middle = (bad + good) // 2
        if costs_nothing(middle):
            good = middle
        else:
            bad = middle
    return good
