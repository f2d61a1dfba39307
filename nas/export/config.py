"""Format ``config``: the training configuration and, beside it, the trial's weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nas.export.archive import CONFIG_NAME, WEIGHTS_NAME, pack
from nas.export.trial import ExportedTrial
from nas.training.checkpoint import load_weights
from nas.training.config import write_config
from nas.training.weights import write_weights


def write(target: Path, trial: ExportedTrial) -> None:
    """An archive of ``config.json`` and, where there is a checkpoint, ``weights.safetensors``.

    Raises:
        TrialFailed: the checkpoint is corrupt.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        config, weights = Path(folder, CONFIG_NAME), Path(folder, WEIGHTS_NAME)
        files = {CONFIG_NAME: config}
        if trial.checkpoint is not None:
            write_weights(weights, load_weights(trial.checkpoint))
            files[WEIGHTS_NAME] = weights
        beside = WEIGHTS_NAME if WEIGHTS_NAME in files else None
        write_config(config, trial.document.model_copy(update={"weights": beside}))
        pack(target, files)
