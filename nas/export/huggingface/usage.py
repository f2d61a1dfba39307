"""The commands that use an exported folder, for its README."""

from __future__ import annotations

from nas.catalogue.tasks import TaskShape

FOLDER = "path/to/this/folder"

NEEDS = (
    "Needs `transformers` 5, `torch` and `pydantic`, and `accelerate` for `Trainer`. The code of "
    "the model lies in this folder and is run when it is loaded, which `trust_remote_code=True` "
    "allows."
)

LOAD = """\
from transformers import {auto}

folder = "{folder}"
model = {auto}.from_pretrained(folder, trust_remote_code=True)
"""

TOKENIZER = """\
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
"""

TUNE_LANGUAGE_MODEL = """\
from transformers import Trainer, TrainingArguments

ids = tokenizer(open("text.txt", encoding="utf-8").read())["input_ids"]
pieces = [ids[i : i + {length}] for i in range(0, len(ids) - {last}, {length})]
data = [{{"input_ids": piece, "labels": piece}} for piece in pieces]
Trainer(model, TrainingArguments("tuned", num_train_epochs=1), train_dataset=data).train()
model.save_pretrained("tuned")
"""

TUNE_CLASSIFIER = """\
from transformers import Trainer, TrainingArguments

texts, labels = ["one text", "another"], [0, 1]
rows = tokenizer(texts, truncation=True, padding=True)
data = [
    {{"input_ids": tokens, "attention_mask": mask, "labels": label}}
    for tokens, mask, label in zip(rows["input_ids"], rows["attention_mask"], labels)
]
Trainer(model, TrainingArguments("tuned", num_train_epochs=1), train_dataset=data).train()
model.save_pretrained("tuned")
"""

TUNE_TOKENS = """\
import torch
from transformers import Trainer, TrainingArguments

tokens = torch.randint({vocabulary}, (16, {length}))  # yours: whole numbers below {vocabulary}
data = [{{"input_ids": row, "labels": {labels}}} for row in tokens]
Trainer(model, TrainingArguments("tuned", num_train_epochs=1), train_dataset=data).train()
model.save_pretrained("tuned")
"""

PIPELINE = """\
from transformers import pipeline

run = pipeline("{pipeline}", model=model, tokenizer=tokenizer)
print(run("def "))
"""

GENERATE_TOKENS = """\
print(model.generate(tokens[:1, :8].to(model.device), max_new_tokens=8))
"""

CLASSIFY_TOKENS = """\
print(model(tokens[:1].to(model.device)).logits.argmax(dim=-1))
"""


def instructions(shape: TaskShape, *, auto: str, pipeline: str | None) -> str:
    """How to load, fine-tune and run the model; pipeline: None where its tokens are no text."""
    decodes = shape.decodes
    if pipeline is None:
        tune, run = TUNE_TOKENS, GENERATE_TOKENS if decodes else CLASSIFY_TOKENS
    else:
        tune, run = TUNE_LANGUAGE_MODEL if decodes else TUNE_CLASSIFIER, PIPELINE
    said = {
        "auto": auto,
        "folder": FOLDER,
        "pipeline": pipeline,
        "length": shape.sequence_length,
        "last": shape.sequence_length - 1,
        "vocabulary": shape.vocab_size,
        "labels": "row" if decodes else "0",
    }
    load = LOAD if pipeline is None else f"{LOAD}\n{TOKENIZER}"
    parts = (("Load it", load), ("Fine-tune it", tune), ("Run it", run))
    blocks = (f"{title}:\n\n```python\n{code.format(**said)}```" for title, code in parts)
    return "\n\n".join((NEEDS, *blocks, *_notes(shape)))


def _notes(shape: TaskShape) -> list[str]:
    if not shape.decodes:
        return []
    return [
        "`labels` are the tokens themselves, -100 where none counts. `generate` decodes greedily "
        "or samples, from a state instead of a cache of keys and values; prompts of a batch are "
        "padded on their left, and do not change each other."
    ]
