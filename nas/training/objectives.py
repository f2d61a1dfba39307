"""Cross-entropy and accuracy, the same for a head at every position and for a pooled one.

Shapes: B batch, N sequence, C classes. Targets (B, N) go with logits (B, N, C), (B,) with (B, C).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name

from nas.models import ModelOutput
from nas.tasks.base import IGNORED


def training_loss(out: ModelOutput, targets: Tensor) -> Tensor:
    """What training makes small, (): the loss of the model's exits, and its auxiliary losses."""
    if out.exits is None:
        loss = mean_loss(out.logits, targets)
    else:
        loss = out.exits.loss(lambda logits: position_losses(logits, targets))
    for auxiliary in out.aux.values():
        loss = loss + auxiliary
    return loss


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats per target, (), in fp32; targets of -100 do not count."""
    return F.cross_entropy(*_flat(logits, targets), ignore_index=IGNORED)


def position_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of each target, in fp32, and whether it counts; both of the targets' shape."""
    nats = F.cross_entropy(*_flat(logits, targets), ignore_index=IGNORED, reduction="none")
    return nats.view(targets.shape), targets != IGNORED


def sums(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nats, hits and targets, each () and summed over all targets but those of -100."""
    flat_logits, flat_targets = _flat(logits, targets)
    nats = F.cross_entropy(flat_logits, flat_targets, ignore_index=IGNORED, reduction="sum")
    hits = (flat_logits.argmax(dim=-1) == flat_targets).sum()
    return nats, hits, (flat_targets != IGNORED).sum()


def _flat(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1)
