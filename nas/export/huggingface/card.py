"""The model card of an exported trial: what it is, how it was found, how it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby

from nas.catalogue.metrics import METRICS
from nas.export.huggingface.tokenizer import ByteTokenizer
from nas.export.huggingface.usage import instructions
from nas.export.trial import ExportedTrial
from nas.schemas import Bill, Interval, Trial
from nas.summary import one_line, short
from search_spaces.architecture import Architecture
from search_spaces.halting.none import NoHalting
from search_spaces.values import Spec

PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
}


def model_card(
    trial: ExportedTrial, *, auto: str, classes: Sequence[str], tokenizer: ByteTokenizer | None
) -> str:
    """The card in Markdown. auto: the Auto class that loads the model."""
    pipeline = None if tokenizer is None else PIPELINES[auto]
    document = trial.document
    sections = (
        _header(pipeline),
        f"# {one_line(document.architecture.model_dump(mode='json'))}",
        _origin(trial),
        "## Use",
        instructions(document.task.shape(), auto=auto, pipeline=pipeline),
        "## Architecture",
        _fenced(drawing(document.architecture, document.task.shape().num_outputs)),
        "## Metrics",
        _metrics(trial),
        *_front(trial),
        "## Data",
        _data(trial, classes),
        *(() if trial.bill is None else ("## Bill of the search", _bill(trial.bill))),
        "## Citations",
        "\n".join(f"- {line}" for line in citations(document.architecture)),
    )
    return "\n\n".join(sections) + "\n"


def specs(arch: Architecture) -> list[Spec]:
    """One spec of each type in it, in the order of the layers, those of the model last."""
    blocks = [spec for layer in arch.layers for spec in (layer.attention, layer.feedforward)]
    return list({type(s): s for s in (*blocks, arch.residual, arch.halting)}.values())


def citations(arch: Architecture) -> list[str]:
    """Where each of its mechanisms comes from."""
    found = (s for s in specs(arch) if s != NoHalting())
    return list(dict.fromkeys(f"{s.title} ({s.kind}): {s.citation}" for s in found))


def drawing(arch: Architecture, outputs: int) -> str:
    """The layers from the first to the last, equal ones as one line."""
    lines = [f"tokens ── embedding, {arch.width} wide, {arch.position} positions", "  │"]
    first = 1
    for layer, same in groupby(arch.layers):
        last = first + len(list(same)) - 1
        numbers = f"{first}" if first == last else f"{first}–{last}"
        attention = f"{_described(layer.attention)}, {layer.heads} heads"
        lines.append(f"  ├─ {numbers:<6} {attention}  →  {_described(layer.feedforward)}")
        first = last + 1
    if arch.repeats > 1:
        lines.append(f"  ↻  {arch.repeats} times, with the same weights")
    if arch.halting.adaptive:
        lines.append(f"  ◇  {_described(arch.halting)} halting")
    lines += ["  │", f"{arch.norm} ── head, {outputs} outputs   ({arch.residual.type} residuals)"]
    return "\n".join(lines)


def _described(spec: Spec) -> str:
    settings = spec.model_dump(mode="json", exclude={"type"})
    return " ".join((spec.name(), *(f"{name}={value}" for name, value in settings.items())))


def _header(pipeline: str | None) -> str:
    lines = ["---", "library_name: transformers", "tags: [paretoformer]"]
    return "\n".join((*lines, *([f"pipeline_tag: {pipeline}"] if pipeline else []), "---"))


def _origin(trial: ExportedTrial) -> str:
    document, source = trial.document, trial.document.provenance
    found = f"Trial `{source.trial}` of job `{source.job}`" if source.trial else "A trial"
    return (
        f"{found} of Paretoformer {version('paretoformer')}, trained for {document.max_steps} "
        f"steps. Fingerprint of the architecture: `{document.architecture.fingerprint()}`."
    )


def _fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _metrics(trial: ExportedTrial) -> str:
    """What is known of the trial, and what fresh seeds confirmed."""
    member = _member(trial)
    verified: Mapping[str, Interval] = (member and member.verified) or {}
    tested: Mapping[str, Interval] = (member and member.tested) or {}
    known = trial.document.provenance.metrics
    rows = [
        (
            name,
            short(name, known[name]) if name in known else "",
            _interval(name, verified),
            _interval(name, tested),
            metric.unit,
        )
        for name, metric in METRICS.items()
        if name in known or name in verified
    ]
    return _table(("metric", "in the search", "fresh seeds", "test split", "unit"), rows)


def _interval(name: str, known: Mapping[str, Interval]) -> str:
    if name not in known:
        return ""
    found = known[name]
    mean = short(name, found.mean)
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ({short(name, found.low)}–{short(name, found.high)}, n = {found.n})"


def _member(trial: ExportedTrial) -> Trial | None:
    """The trial as it stands on the front; None if it does not."""
    items = [] if trial.front is None else trial.front.items
    return next((t for t in items if t.id == trial.document.provenance.trial), None)


def _front(trial: ExportedTrial) -> Iterator[str]:
    """Where the trial stands among those that no other beats in everything."""
    if trial.front is None:
        return
    front, member = trial.front, _member(trial)
    yield "## Pareto front"
    if member is None:
        yield f"The trial is not among the {len(front.items)} on the front of its job:"
    else:
        place = front.items.index(member) + 1
        knee = ", its knee" if front.knee == member.id else ""
        yield f"Number {place} of {len(front.items)} by {front.objectives[0]}{knee}:"
    yield _table(
        ("", *front.objectives, "architecture"),
        (
            (
                "→" if t is member else "",
                *(short(name, t.metrics[name]) for name in front.objectives),
                one_line(t.architecture),
            )
            for t in front.items
        ),
    )


def _data(trial: ExportedTrial, classes: Sequence[str]) -> str:
    task = trial.document.task
    named = f"\n\nClasses: {', '.join(classes)}." if classes else ""
    return (
        f"{task.title}: {task.description}\n\n"
        f"{_fenced(json.dumps(task.model_dump(mode='json'), ensure_ascii=False), 'json')}\n\n"
        f"SHA-256 of the data: `{trial.document.data_hash}`.{named}"
    )


def _bill(bill: Bill) -> str:
    verification = f"of which {bill.verification_core_seconds:.0f} for verification"
    return (
        f"Of the whole job: {bill.core_seconds:.0f} core-seconds ({verification}), "
        f"{bill.energy_kwh:.3g} kWh ({bill.energy_source}), {bill.co2_kg:.3g} kg CO₂, "
        f"{bill.money:.2f} {bill.currency}."
    )
