"""Format ``huggingface``: a folder that ``transformers`` loads without this project.

It holds the weights, the code of the mechanisms that the architecture has, a tokenizer where the
task reads bytes, and a model card. Writing one needs no ``transformers``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.catalogue.tasks import TaskConfig, TaskShape
from nas.errors import Unsupported
from nas.export.archive import CONFIG_NAME, pack
from nas.export.huggingface.bundle import bundle
from nas.export.huggingface.card import model_card, specs
from nas.export.huggingface.tokenizer import ByteTokenizer
from nas.export.trial import ExportedTrial
from nas.models.mechanism import module_class
from nas.training.checkpoint import load_weights
from nas.training.weights import write_weights

MODULES = {
    "nas.export.huggingface.configuration": "configuration_paretoformer",
    "nas.export.huggingface.modeling": "modeling_paretoformer",
}
NEW_TOKENS = 256
"""At most so many are generated where the caller does not say how many."""


class Head(NamedTuple):
    """How ``transformers`` calls a kind of model: its Auto class, and our class for it."""

    auto: str
    model: str


LANGUAGE_MODEL = Head("AutoModelForCausalLM", "ParetoformerForCausalLM")
CLASSIFIER = Head("AutoModelForSequenceClassification", "ParetoformerForSequenceClassification")


def write(target: Path, trial: ExportedTrial) -> None:
    """An archive of the folder, all files side by side.

    Raises:
        Unsupported: the trial has no weights any more, or its task is of neither kind.
        TrialFailed: the checkpoint is corrupt.
    """
    if trial.checkpoint is None:
        raise Unsupported(
            "the trial's weights are gone, and a model for transformers is nothing without: "
            "export the configuration, and train it"
        )
    task = trial.document.task
    head, tokenizer = _head(task.shape()), _tokenizer(task)
    classes = class_names(trial) if head is CLASSIFIER else ()
    weights = {f"model.{name}": tensor for name, tensor in load_weights(trial.checkpoint).items()}
    texts = {
        "README.md": model_card(trial, auto=head.auto, classes=classes, tokenizer=tokenizer),
        CONFIG_NAME: _json(_config(trial, head, classes, tokenizer)),
        **{name: _json(content) for name, content in _beside(task.shape(), tokenizer).items()},
        **bundle(MODULES, {"nas.export.huggingface.modeling": _mechanisms(trial)}),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        files = {"model.safetensors": Path(folder, "model.safetensors")}
        write_weights(files["model.safetensors"], weights)
        for name, text in sorted(texts.items()):
            files[name] = Path(folder, name)
            files[name].write_text(text, encoding="utf-8")
        pack(target, files)


def _head(shape: TaskShape) -> Head:
    if shape.head == "pooled":
        return CLASSIFIER
    if shape.decodes:
        return LANGUAGE_MODEL
    raise Unsupported("transformers has no class for an encoder with an output at every position")


def _tokenizer(task: TaskConfig) -> ByteTokenizer | None:
    """None: the task's tokens are no text."""
    if task.first_byte is None:
        return None
    shape = task.shape()
    # what is to be continued cannot end in padding
    return ByteTokenizer(task.first_byte, shape.sequence_length, left=shape.decodes)


def _config(
    trial: ExportedTrial, head: Head, classes: Sequence[str], tokenizer: ByteTokenizer | None
) -> dict[str, Any]:
    document, shape = trial.document, trial.document.task.shape()
    outputs: dict[str, Any] = {"num_outputs": shape.num_outputs}
    if classes:
        outputs = {
            "id2label": dict(enumerate(classes)),
            "label2id": {name: i for i, name in enumerate(classes)},
            "problem_type": "single_label_classification",
        }
    return {
        "model_type": "paretoformer",
        "architectures": [head.model],
        "auto_map": {
            "AutoConfig": "configuration_paretoformer.ParetoformerConfig",
            head.auto: f"modeling_paretoformer.{head.model}",
        },
        "dtype": "float32",
        "architecture": json.loads(document.architecture.canonical_json()),
        "causal": shape.causal,
        "vocab_size": shape.vocab_size if tokenizer is None else tokenizer.size,
        "num_embeddings": shape.vocab_size,
        "max_position_embeddings": shape.sequence_length,
        "pad_token_id": None if tokenizer is None else tokenizer.padding,
        **outputs,
    }


def class_names(trial: ExportedTrial) -> tuple[str, ...]:
    """The names of a task's classes; numbered ones where they are not known."""
    number = trial.document.task.shape().num_outputs
    if trial.labels is not None and len(trial.labels) == number:
        return trial.labels
    return tuple(f"LABEL_{i}" for i in range(number))


def _beside(shape: TaskShape, tokenizer: ByteTokenizer | None) -> Mapping[str, Any]:
    """The contents of the other JSON files, by name."""
    files: dict[str, Any] = {} if tokenizer is None else tokenizer.files()
    if shape.decodes:
        padding = {} if tokenizer is None else {"pad_token_id": tokenizer.padding}
        files["generation_config.json"] = {
            "do_sample": False,
            # positions may be learned: half of them is left for the prompt
            "max_new_tokens": min(NEW_TOKENS, max(1, shape.sequence_length // 2)),
            "use_cache": True,
            **padding,
        }
    return files


def _mechanisms(trial: ExportedTrial) -> list[type]:
    """The classes of all mechanisms that the architecture is made of."""
    return [module_class(type(spec)) for spec in specs(trial.document.architecture)]


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
