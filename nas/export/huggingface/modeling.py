"""An exported model, as ``transformers`` takes it: loaded by its Auto classes, trained by its
``Trainer``, decoding in ``generate`` from the model's own state.

Shapes: B batch, N sequence, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation import GenerationMode
from transformers.utils import ModelOutput

from nas.export.huggingface.configuration import ParetoformerConfig
from nas.models.answer import initialise_head
from nas.models.transformer import ModelState, build_model
from search_spaces.architecture import Architecture

IGNORED = -100
"""A label that does not count."""


class Rows(NamedTuple):
    """Rows of a batch that have as much padding on their left, and where the model has come to."""

    rows: Tensor
    padding: int
    state: ModelState


@dataclass(frozen=True)
class Decoding:
    """What ``generate`` keeps from one token to the next; length: of the input so far, padding
    included."""

    length: int
    groups: tuple[Rows, ...]


@dataclass
class ParetoformerOutput(ModelOutput):
    """logits: (B, N, C), or (B, C) of a classifier.  state: to go on from."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: Decoding | None = None


class ParetoformerModel(PreTrainedModel):
    """What both heads share."""

    config_class = ParetoformerConfig
    accepts_loss_kwargs = False
    pooled: ClassVar[bool]

    def __init__(self, config: ParetoformerConfig) -> None:
        super().__init__(config)
        # in real memory also where weights are still to be loaded: what a mechanism draws or
        # computes as it is built could not be had otherwise
        with torch.device("cpu"):
            self.model = build_model(
                Architecture.model_validate(config.architecture),
                vocab_size=config.num_embeddings,
                num_outputs=config.num_labels if self.pooled else config.num_outputs,
                max_length=config.max_position_embeddings,
                causal=config.causal,
                head="pooled" if self.pooled else "token",
            )
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            tensor._is_hf_initialized = True  # type: ignore[attr-defined]
        self._tables = {
            module: {
                name: buffer.clone()
                for name, buffer in module.named_buffers(recurse=False)
                if name in module._non_persistent_buffers_set
            }
            for module in self.model.modules()
        }
        self.post_init()

    @classmethod
    def from_pretrained(cls, *arguments: Any, **named: Any) -> Any:
        """The model of a folder; see ``transformers``."""
        loaded = super().from_pretrained(*arguments, **named)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # a mechanism may read its buffers once, when a state is loaded, which here none was
        model.model.load_state_dict(model.model.state_dict())
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        """What no file holds: heads of another size than the saved ones, and computed tables."""
        if isinstance(module, nn.Linear):
            initialise_head(module)
        for name, table in self._tables.get(module, {}).items():
            module.get_buffer(name).copy_(table)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.model.embedding

    def resize_token_embeddings(self, *arguments: Any, **named: Any) -> nn.Module:
        """Refused: which tokens there are belongs to the task that was searched for."""
        raise ValueError("the vocabulary of this model is fixed")

    def _run(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Any, Tensor | None]:
        """The model on whole sequences, and in which order it has seen the positions.

        Padding goes behind what is valid, wherever it stands: then positions count from the first
        valid token, as they did when the model was trained. None: the order is as given.
        """
        tokens, mask = self._tokens(input_ids), self._valid(input_ids, attention_mask)
        if mask is None or bool((mask[:, 1:] <= mask[:, :-1]).all()):
            return self.model(tokens, mask), None
        order = (~mask).long().argsort(dim=1, stable=True)
        return self.model(tokens.gather(1, order), mask.gather(1, order)), order

    def _tokens(self, input_ids: Tensor) -> Tensor:
        """Tokens that have an embedding: what stands for padding may have none."""
        padding = self.config.pad_token_id
        if padding is None or padding < self.config.num_embeddings:
            return input_ids
        return input_ids.masked_fill(input_ids == padding, 0)

    def _valid(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        """True where valid, by the mask or by the id of padding; None: all are."""
        if attention_mask is not None:
            mask = attention_mask.to(input_ids.device).bool()
        elif self.config.pad_token_id is not None:
            mask = input_ids != self.config.pad_token_id
        else:
            return None
        return None if bool(mask.all()) else mask

    def _loss(self, out: Any, targets: Tensor) -> Tensor:
        """Nats per target; in training, of all exits, and with the model's auxiliary losses."""

        def nats(logits: Tensor) -> tuple[Tensor, Tensor]:
            flat = logits.reshape(-1, logits.shape[-1]).float()
            each = functional.cross_entropy(
                flat, targets.reshape(-1), ignore_index=IGNORED, reduction="none"
            )
            return each.view(targets.shape), targets != IGNORED

        if out.exits is not None:
            loss: Tensor = out.exits.loss(nats)
        else:
            each, counts = nats(out.logits)
            loss = each.sum() / counts.sum()
        return sum(out.aux.values(), loss) if self.training else loss


class ParetoformerForCausalLM(ParetoformerModel, GenerationMixin):
    """A language model. ``labels`` are the tokens themselves: the model moves them by one."""

    pooled = False
    _is_stateful = True
    # a state cannot be taken apart into the rows of beams, nor go back by a few tokens
    _supported_generation_modes = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: Decoding | None = None,
        use_cache: bool = False,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits (B, N, C) of tokens (B, N), after those that a state has seen.

        attention_mask: (B, N), 0 where padding; counts until there is a state.  labels: (B, N),
        -100 where none counts.  use_cache: give a state to go on from.

        Raises:
            ValueError: padding among tokens that a state is to see, unless it is on their left.
        """
        if use_cache or state is not None:
            out = self._decode(input_ids, attention_mask, state)
        else:
            out = self._predict(input_ids, attention_mask, labels)
        return out.to_tuple() if return_dict is False else out

    def _predict(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None
    ) -> ParetoformerOutput:
        out, order = self._run(input_ids, attention_mask)
        loss, logits = None, out.logits
        if labels is not None:
            seen = labels if order is None else labels.gather(1, order)
            loss = self._loss(out, functional.pad(seen[:, 1:], (0, 1), value=IGNORED))
        if order is not None:
            back = order.argsort(dim=1).unsqueeze(-1).expand_as(logits)
            logits = logits.gather(1, back)
        return ParetoformerOutput(loss=loss, logits=logits)

    def _decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, state: Decoding | None
    ) -> ParetoformerOutput:
        tokens = self._tokens(input_ids)
        if state is None:
            groups, length = self._begin(self._valid(input_ids, attention_mask), tokens), 0
        else:
            groups, length = state.groups, state.length
        logits = self.model.head.weight.new_zeros(*tokens.shape, self.model.head.out_features)
        after = []
        for rows, padding, before in groups:
            out = self.model(tokens[rows, padding:], state=before)
            logits[rows, padding:] = out.logits.to(logits.dtype)
            after.append(Rows(rows, 0, out.state))
        return ParetoformerOutput(
            logits=logits, state=Decoding(length + tokens.shape[1], tuple(after))
        )

    def _begin(self, mask: Tensor | None, tokens: Tensor) -> tuple[Rows, ...]:
        """The rows by how much padding they begin with, no token seen yet."""
        if mask is None:
            mask = torch.ones_like(tokens, dtype=torch.bool)
        if not bool((mask[:, 1:] >= mask[:, :-1]).all() and mask[:, -1].all()):
            raise ValueError(
                "prompts are padded on their left to be continued: set tokenizer.padding_side "
                "to 'left', and leave no prompt empty"
            )
        padding = (~mask).sum(dim=1)
        numbers = sorted(set(padding.tolist()))
        alike = [(n, (padding == n).nonzero().squeeze(1)) for n in numbers]
        return tuple(Rows(rows, n, self.model.init_state(len(rows))) for n, rows in alike)

    # what ``generate`` asks for between two calls

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: keys and values are not what every mechanism keeps."""
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: Decoding | None = None,
        use_cache: bool | None = None,
        **rest: Any,
    ) -> dict[str, Any]:
        """All tokens, or those that the state has not seen."""
        seen = 0 if state is None else state.length
        return {
            "input_ids": input_ids[:, seen:].to(self.device),
            "attention_mask": attention_mask,
            "state": state,
            "use_cache": bool(use_cache),
        }

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], **rest: Any
    ) -> dict[str, Any]:
        following: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, **rest
        )
        return following | {"state": outputs.state}


class ParetoformerForSequenceClassification(ParetoformerModel):
    """A classifier of whole sequences."""

    pooled = True

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits (B, C) of tokens (B, N).

        attention_mask: (B, N), 0 where padding.  labels: (B,).
        """
        out, _ = self._run(input_ids, attention_mask)
        loss = None if labels is None else self._loss(out, labels)
        answer = ParetoformerOutput(loss=loss, logits=out.logits)
        return answer.to_tuple() if return_dict is False else answer
