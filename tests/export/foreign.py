"""Run where this project is not to be had: exported folders in the hands of ``transformers``.

``python foreign.py WHAT FOLDER …``: WHAT is a function below, whose answer is printed as JSON.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

PROJECT = {"nas", "search_spaces", "workers", "api"}


class Absent(importlib.abc.MetaPathFinder):
    """Finds none of the project's packages, and lets nobody else find them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.split(".")[0] in PROJECT:
            raise ModuleNotFoundError(f"no module {fullname} here", name=fullname)


sys.meta_path.insert(0, Absent())

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    Trainer,
    TrainingArguments,
)


def load(folder: Path, **settings: Any) -> Any:
    """The model of a folder, by the Auto class that its configuration names."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    (auto,) = set(config.auto_map) - {"AutoConfig"}
    return getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True, **settings)


def answers(*folders: Path) -> dict[str, Any]:
    """What each model answers to the inputs beside its folder."""
    for folder in folders:
        model, given = load(folder), load_file(folder / "given" / "inputs.safetensors")
        with torch.no_grad():
            found = {
                side: model(given[f"{side}_tokens"], given[f"{side}_mask"]).logits
                for side in ("left", "right")
            }
        if model.can_generate():
            found["generated"] = model.generate(
                given["left_tokens"], attention_mask=given["left_mask"], max_new_tokens=8
            )
        save_file(found, folder / "given" / "outputs.safetensors")
    return {"modules": sorted(PROJECT & {name.split(".")[0] for name in sys.modules})}


def trained(model: Any, rows: list[dict[str, Any]], out: Path) -> list[float]:
    """The losses of two steps of the trainer, and of an evaluation after them."""
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        logging_steps=1,
        save_steps=2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return [*losses, trainer.evaluate()["eval_loss"]]


def same(one: Any, other: Any) -> bool:
    """Whether two models have the same weights."""
    here, there = one.state_dict(), other.state_dict()
    return here.keys() == there.keys() and all(here[name].equal(there[name]) for name in here)


def language_model(folder: Path) -> dict[str, Any]:
    """Tokenizer, decoding, training and saving of a language model of bytes."""
    model = load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    text = "für jede Āra <b>\n\x00"
    batch = tokenizer(["def ", "import os, "], return_tensors="pt", padding=True)
    single = [tokenizer(prompt, return_tensors="pt") for prompt in ("def ", "import os, ")]

    def decode(**settings: Any) -> list[Any]:
        return model.generate(**batch, max_new_tokens=5, **settings)[:, -5:].tolist()

    torch.manual_seed(1)
    sampled = decode(do_sample=True)
    refused = {}
    for name, run in {
        "beams": lambda: decode(num_beams=2),
        "right": lambda: model.generate(
            batch["input_ids"].flip(1), attention_mask=batch["attention_mask"].flip(1)
        ),
        "vocabulary": lambda: model.resize_token_embeddings(300),
    }.items():
        try:
            run()
        except ValueError as error:
            refused[name] = str(error)
    pieces = [tokenizer("for i in range(100): print(i)" * 2)["input_ids"][:32]] * 4
    before = decode()
    losses = trained(model, [{"input_ids": p, "labels": p} for p in pieces], folder / "run")
    model.save_pretrained(folder / "saved")
    tokenizer.save_pretrained(folder / "saved")
    return {
        "ids": tokenizer(text)["input_ids"],
        "bytes": list(text.encode()),
        "text": tokenizer.decode(tokenizer(text)["input_ids"]) == text,
        "padding": [batch["input_ids"][0].tolist(), batch["attention_mask"][0].tolist()],
        "batch": before,
        "alone": [model_alone[0, -5:].tolist() for model_alone in _alone(load(folder), single)],
        "without cache": _without_cache(load(folder), batch),
        "sampled": sampled == _sampled_again(load(folder), batch),
        "stopped": _stopped(load(folder), batch, before),
        "refused": refused,
        "losses": losses,
        "generation": GenerationConfig.from_pretrained(folder).to_diff_dict(),
        "saved": same(model, load(folder / "saved")),
        "saved by the trainer": same(model, load(folder / "run" / "checkpoint-2")),
        "code": sorted(p.name for p in (folder / "saved").glob("*.py")),
    }


def _alone(model: Any, prompts: list[Any]) -> list[Any]:
    return [model.generate(**prompt, max_new_tokens=5) for prompt in prompts]


def _without_cache(model: Any, batch: Any) -> list[Any]:
    return model.generate(**batch, max_new_tokens=5, use_cache=False)[:, -5:].tolist()


def _sampled_again(model: Any, batch: Any) -> list[Any]:
    torch.manual_seed(1)
    return model.generate(**batch, max_new_tokens=5, do_sample=True)[:, -5:].tolist()


def _stopped(model: Any, batch: Any, plain: list[Any]) -> list[Any]:
    """Decoding that ends in the first row at what is there its second token."""
    return model.generate(**batch, max_new_tokens=5, eos_token_id=plain[0][1])[:, -5:].tolist()


def classifier(folder: Path) -> dict[str, Any]:
    """Tokenizer, labels, training, saving and another head of a classifier of bytes."""
    model = load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    texts = ["import asyncio", "class Element:"]
    rows = tokenizer(texts, padding=True)
    data = [
        {"input_ids": i, "attention_mask": m, "labels": y}
        for i, m, y in zip(rows["input_ids"], rows["attention_mask"], (0, 3), strict=True)
    ]
    run = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    named = run(texts[0], top_k=None)
    losses = trained(model, data, folder / "run")
    model.save_pretrained(folder / "saved")
    other = load(folder, num_labels=3, ignore_mismatched_sizes=True)
    return {
        "ids": rows["input_ids"][0],
        "names": sorted(entry["label"] for entry in named),
        "losses": losses,
        "saved": same(model, load(folder / "saved")),
        "other head": list(other.model.head.weight.shape),
        "its spread": float(other.model.head.weight.std()),
    }


def readme(*folders: Path) -> dict[str, Any]:
    """Run the commands of each folder's own README, as they stand there, beside the folder."""
    ran = {}
    for folder in folders:
        os.chdir(folder.parent)
        text = (folder / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        code = "\n".join(blocks).replace("path/to/this/folder", str(folder))
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - what it is for
        ran[folder.parent.name] = len(blocks)
    return ran


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    print(json.dumps(globals()[what](*map(Path, given))))
