"""The configuration of an exported model, as ``transformers`` takes it."""

from typing import Any, ClassVar

from transformers import PreTrainedConfig


class ParetoformerConfig(PreTrainedConfig):
    """An architecture and the shape of its input and output.

    num_embeddings: tokens that have an embedding; ``vocab_size`` may count padding besides.
    num_outputs: logits at each position; a classifier has ``num_labels`` for the whole sequence.
    max_position_embeddings: the length that the model was built for.
    """

    model_type = "paretoformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["state"]

    architecture: dict[str, Any] | None = None
    causal: bool = True
    vocab_size: int = 256
    num_embeddings: int = 256
    num_outputs: int = 256
    max_position_embeddings: int = 512
    pad_token_id: int | None = None
