"""What every attention module offers.

Shapes: B batch, N sequence, H heads, D width, E head width (D / H).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import Unsupported
from nas.models.mechanism import Mechanism
from nas.models.positions import Rotation, rotate
from search_spaces.attention.base import AttentionSpec, Position
from search_spaces.errors import InvalidInput, Problem

S = TypeVar("S", bound=AttentionSpec)


class Shared(nn.Module):
    """Parameters that several layers of one model use: they belong to the model, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.ParameterDict()

    def get(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The parameter of that name, made by the first layer that asks."""
        if name not in self.named:
            self.named[name] = nn.Parameter(make())
        parameter: Tensor = self.named[name]
        return parameter


class Inputs(NamedTuple):
    """The state of a mechanism that recomputes: all inputs (B, T, D) and their rotation."""

    x: Tensor
    rotation: Rotation | None

    def followed_by(self, x: Tensor, rotation: Rotation | None) -> Inputs:
        """With N more tokens."""
        joined = torch.cat((self.x, x), dim=1)
        if rotation is None or self.rotation is None:
            return Inputs(joined, rotation)
        return Inputs(joined, Rotation(torch.cat((self.rotation.unit, rotation.unit))))


@dataclass(frozen=True)
class AttentionSlot:
    """Where an attention module stands.

    position: what tells the model where a token stands; biases on scores are the module's own work.
    shared: the parameters of the model that its layers share; None: the module stands alone.
    """

    d_model: int
    heads: int
    max_length: int
    causal: bool
    position: Position = "none"
    shared: Shared | None = None


def key_mask(mask: Tensor | None, causal: bool) -> Tensor | None:
    """The mask (B, N) if any query could see a padded key, else None.

    Full sequences need none, and neither do causal ones padded on the right: a valid query sees
    only keys to its left, and those are valid.
    """
    if mask is None or bool(mask.all()):
        return None
    if causal and bool((mask[:, 1:] <= mask[:, :-1]).all()):
        return None
    return mask


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) → (B, H, N, E), a view."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def widen(x: Tensor) -> Tensor:
    """In at least single precision: half of it spoils long sums, and close calls."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Attention(Mechanism, Generic[S]):
    """Token mixing between a fused projection to queries, keys, values and one back.

    Subclasses mix heads (``_mix``) and, if they decode, continue from a state (``_continue``).
    """

    def __init__(self, spec: S, slot: AttentionSlot) -> None:
        d_model, heads = slot.d_model, slot.heads
        if d_model % heads:
            raise InvalidInput([Problem("/heads", f"{heads} heads do not divide width {d_model}")])
        if heads % spec.heads_per_key:
            message = f"groups of {spec.heads_per_key} do not divide {heads} heads"
            raise InvalidInput([Problem("/queries_per_key", message)])
        if slot.causal and not spec.causal:
            raise InvalidInput(
                [Problem("/type", f"{spec.type} is for encoders and cannot be causal")]
            )
        super().__init__()
        self.spec = spec
        self.heads = heads
        self.key_heads = heads // spec.heads_per_key
        self.head_width = d_model // heads
        self.max_length = slot.max_length
        self.causal = slot.causal
        self.qkv = nn.Linear(d_model, d_model + 2 * self.key_heads * self.head_width, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        for linear in (self.qkv, self.out):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d_model))

    @property
    def memory_size(self) -> int:
        """Most positions of earlier segments that it keeps; 0: it has no memory."""
        return 0

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotation: Rotation | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """(B, N, D) → (B, N, D); mask (B, N), True = valid; padded positions get finite rubbish.

        memory (B, M, D): what ``remember`` gave after the segment before; None: there is none.

        Raises:
            Unsupported: a memory for a mechanism without one.
        """
        seen = key_mask(mask, self.causal)
        if memory is None:
            mixed = self._mix(x, seen, rotation)
        else:
            mixed = self._mix_after(memory, x, seen, rotation)
        y: Tensor = self.out(mixed)
        return y

    def remember(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """The memory after a segment (B, N, D) that followed ``memory``: (B, M, D), detached.

        M is at most ``memory_size``; the last positions are kept.
        """
        seen = x if memory is None else torch.cat((memory, x), dim=1)
        return seen[:, max(0, seen.shape[1] - self.memory_size) :].detach().clone()

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token.

        Raises:
            Unsupported: the mechanism does not decode, or was built for an encoder.
        """
        if not self.causal:
            raise Unsupported(f"{self.spec.type} attention built for an encoder does not decode")
        return self._first_state(batch_size)

    def extend(self, x: Tensor, state: Any, rotation: Rotation | None = None) -> tuple[Tensor, Any]:
        """Go on from a state with N more tokens (B, N, D): their outputs, and the state after."""
        mixed, state = self._continue(x, state, rotation)
        y: Tensor = self.out(mixed)
        return y, state

    def absorb(self, x: Tensor, state: Any, rotation: Rotation | None = None) -> Any:
        """The state after N more tokens that need no output themselves."""
        return self._continue(x, state, rotation)[1]

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token, (B, D) or (B, 1, D), after ``state`` (None: the first one)."""
        if state is None:
            state = self.init_state(x.shape[0])
        if x.dim() == 3:
            return self.extend(x, state)
        y, state = self.extend(x.unsqueeze(1), state)
        return y.squeeze(1), state

    @abstractmethod
    def _mix(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None) -> Tensor:
        """(B, N, D) → (B, N, D), the heads side by side."""

    def _mix_after(
        self, memory: Tensor, x: Tensor, mask: Tensor | None, rotation: Rotation | None
    ) -> Tensor:
        """``_mix`` with the M positions of a memory (B, M, D) before the sequence."""
        raise Unsupported(f"{self.spec.type} attention has no memory")

    def _first_state(self, batch_size: int) -> Any:
        if self.spec.decoding == "recompute":
            return Inputs(self._zeros(batch_size, 0, self.qkv.in_features), None)
        raise Unsupported(f"{self.spec.type} attention does not decode")

    def _continue(self, x: Tensor, state: Any, rotation: Rotation | None) -> tuple[Tensor, Any]:
        """N more tokens (B, N, D) → (B, N, D), and the state after them.

        Here for ``decoding = "recompute"``: the mechanism is run on all tokens so far.
        """
        if self.spec.decoding != "recompute":
            raise Unsupported(f"{self.spec.type} attention does not decode")
        state = state.followed_by(x, rotation)
        return self._mix(state.x, None, state.rotation)[:, -x.shape[1] :], state

    def _project(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Views: queries (B, H, N, E), keys, rotated as they are, values (B, key heads, N, E)."""
        B, N, D = x.shape
        H, G, E = self.heads, self.key_heads, self.head_width
        if rotation is None:
            heads = self.qkv(x).view(B, N, H + 2 * G, E).transpose(1, 2)
            q, k, v = torch.split(heads, [H, G, G], dim=1)
            return q, k, v
        # apart from the values, whose memory would keep the unrotated ones alive
        w_qk, w_v = torch.split(self.qkv.weight, [D + G * E, G * E])
        qk = rotate(functional.linear(x, w_qk).view(B, N, H + G, E), rotation).transpose(1, 2)
        q, k = torch.split(qk, [H, G], dim=1)
        return q, k, split_heads(functional.linear(x, w_v), G)

    def _project_densely(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """Contiguous queries with keys (2, B·H, N, E) and values (B·H, N, E)."""
        B, N, D = x.shape
        H, E = self.heads, self.head_width
        w_qk, w_v = torch.split(self.qkv.weight, [2 * D, D])
        qk = functional.linear(x, w_qk).view(B, N, 2 * H, E)
        if rotation is not None:
            qk = rotate(qk, rotation)
        dense = qk.view(B, N, 2, H, E).permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)
        del qk  # before there are values: the most memory is taken here
        return dense, split_heads(functional.linear(x, w_v), H).contiguous().flatten(0, 1)

    def _project_rows(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Contiguous queries (B·H, N, E), keys and values (B·key heads, N, E)."""
        B, N, D = x.shape
        H, G, E = self.heads, self.key_heads, self.head_width
        if H == G:  # one copy serves queries and keys
            qk, v = self._project_densely(x, rotation)
            return qk[0], qk[1], v
        w_qk, w_v = torch.split(self.qkv.weight, [D + G * E, G * E])
        qk = functional.linear(x, w_qk).view(B, N, H + G, E)
        if rotation is not None:
            qk = rotate(qk, rotation)
        q, k = (
            t.contiguous().flatten(0, 1) for t in torch.split(qk.transpose(1, 2), [H, G], dim=1)
        )
        del qk  # before there are values: the most memory is taken here
        return q, k, split_heads(functional.linear(x, w_v), G).contiguous().flatten(0, 1)

    def _zeros(self, *shape: int) -> Tensor:
        """Zeros of the weights' type, on their device."""
        weight: Tensor = self.qkv.weight
        return weight.new_zeros(shape)
