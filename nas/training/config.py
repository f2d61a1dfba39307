"""The training configuration: one JSON that says all that is needed to train an architecture."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, FiniteFloat, ValidationError

from nas.atomic import replacing
from nas.catalogue.tasks import AnyTask
from nas.schemas import TrainingRecipe
from search_spaces.architecture import Architecture, problems
from search_spaces.errors import InvalidInput, Problem
from search_spaces.validation import problems_in
from search_spaces.values import Value

FULL_LENGTH = 10
"""A full training is this many times the steps that the search gave its best trials."""

LARGEST_CONFIG = 1 << 20


def _full_steps(given: Mapping[str, Any]) -> int:
    return FULL_LENGTH * int(given["max_steps"])


FileName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")]
"""A name, never a path."""


class Provenance(Value):
    """Where a configuration comes from.

    versions: of the programs that made it.  metrics: what the search knew of the trial.
    """

    job: str | None = None
    trial: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)


class TrainingConfig(Value):
    """Architecture, task and recipe of a trial, and how long to train it for good.

    max_steps: what the search called full fidelity.  full_steps: the length of a full training,
    ten times that.  data_hash: SHA-256 of the data that it was searched on.  weights: the name of a
    safetensors file beside this one that holds the trial's weights.
    """

    schema_version: Literal[1] = 1
    architecture: Architecture
    task: AnyTask
    recipe: TrainingRecipe
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)]
    full_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(default_factory=_full_steps)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    data_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    provenance: Provenance = Provenance()
    weights: FileName | None = None


def versions_here() -> dict[str, str]:
    """Versions of what runs here, for a provenance."""
    found = {"python": platform.python_version()}
    for package in ("paretoformer", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the API's image has no torch
            continue
    return found


def write_config(path: Path, config: TrainingConfig) -> None:
    """Write the document, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_config(path: Path) -> TrainingConfig:
    """Read and check a document.

    Raises:
        InvalidInput: there is none, it is no JSON, a key is unknown or missing, a value is not
            allowed, or the architecture cannot do the task; with pointers into the document.
    """
    document = _json(path)
    try:
        config = TrainingConfig.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(problems_in(error, document)) from error
    if found := problems(config.architecture, causal=config.task.shape().causal):
        raise InvalidInput([problem.under("/architecture") for problem in found])
    return config


def _json(path: Path) -> object:
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise InvalidInput([Problem("", f"{path} is too large for a training configuration")])
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput([Problem("", f"cannot read {path}: {error.strerror}")]) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput([Problem("", f"{path} is not JSON: {error}")]) from error
