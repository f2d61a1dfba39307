from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nas.export import read_config, unpack
from nas.jobs import Jobs
from nas.models import build_model
from nas.schemas import ExportRequest, JobRequest
from nas.settings import Settings
from nas.states import ExportState, JobState
from nas.store import exports
from nas.store import jobs as job_rows
from nas.store.records import ExportRecord, TrialRecord
from nas.training.checkpoint import Checkpoint, save_checkpoint
from search_spaces import Architecture
from workers.exporting import make_export

ROWS = b"text,label\na fine film,good\nan awful one,bad\n"
TASK = {"name": "text_classification", "dataset": "films", "classes": 2, "sequence_length": 32}


@pytest.fixture
def trial(service: Jobs, lab: Any) -> TrialRecord:
    """Of a job on labelled data that were uploaded, the better of the two on its front."""
    service.add_dataset("films", [ROWS], "labelled")
    request = {"task": TASK, "objectives": ["loss", "parameters"]}
    service.submit(JobRequest.model_validate(request))
    job = lab.claim()
    with lab.writing() as session:
        job_rows.begin(
            session,
            job.id,
            job.token,
            task_key="t",
            result_key="r",
            data_hash="f" * 64,
            trivial_loss=0.7,
            scales={},
        )
    for i, loss in enumerate((0.6, 0.4)):
        made = lab.insert(job, i, costs={"parameters": 100.0 * (i + 1)})
        lab.train(job, made, {"loss": loss})
    found: TrialRecord = lab.trial(made.id)
    return found


def keep_weights(settings: Settings, trial: TrialRecord) -> None:
    model = build_model(
        Architecture.model_validate(trial.architecture),
        vocab_size=257,
        num_outputs=2,
        max_length=32,
        causal=False,
        head="pooled",
    )
    folder = settings.checkpoints / trial.job_id
    folder.mkdir(parents=True)
    save_checkpoint(folder / f"{trial.id}.pt", Checkpoint("any", 10, model.state_dict(), None))


def made(
    service: Jobs, settings: Settings, lab: Any, trial: TrialRecord, kind: Any
) -> ExportRecord:
    """The export of a trial, as a worker has left it."""
    service.request_export(trial.job_id, ExportRequest(trial=trial.id, format=kind))
    with lab.writing() as session:
        claimed = exports.claim(session, "worker", 60)
    assert claimed is not None
    make_export(settings, lab.store, claimed.id, claimed.token)
    with lab.store.read() as session:
        return exports.get(session, claimed.id)


def test_a_folder_for_transformers_tells_where_it_comes_from(
    service: Jobs, service_settings: Settings, lab: Any, trial: TrialRecord, tmp_path: Path
) -> None:
    keep_weights(service_settings, trial)
    done = made(service, service_settings, lab, trial, "huggingface")
    assert (done.state, done.error) == (ExportState.SUCCEEDED, None)
    config = unpack(service.export_path(done.id), tmp_path / "winner", "huggingface")
    assert json.loads(config.read_text())["id2label"] == {"0": "bad", "1": "good"}
    card = (tmp_path / "winner" / "README.md").read_text()
    assert "Number 1 of 2 by loss" in card
    assert "Classes: bad, good." in card
    assert "core-seconds" in card
    assert trial.job_id in card


def test_labels_of_other_data_of_the_same_name_are_not_taken(
    service: Jobs, service_settings: Settings, lab: Any, trial: TrialRecord, tmp_path: Path
) -> None:
    keep_weights(service_settings, trial)
    with lab.writing() as session:
        token = job_rows.record(session, trial.job_id).token
        job_rows.finish(session, trial.job_id, token, JobState.SUCCEEDED)
    service.delete_dataset("films")
    service.add_dataset("films", [ROWS.replace(b"good", b"fair")], "labelled")
    done = made(service, service_settings, lab, trial, "huggingface")
    config = unpack(service.export_path(done.id), tmp_path / "winner", "huggingface")
    assert json.loads(config.read_text())["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}


def test_weights_that_are_gone_are_said_in_the_export(
    service: Jobs, service_settings: Settings, lab: Any, trial: TrialRecord, tmp_path: Path
) -> None:
    done = made(service, service_settings, lab, trial, "huggingface")
    assert done.state == ExportState.FAILED
    assert "weights are gone" in str(done.error)
    alone = made(service, service_settings, lab, trial, "config")
    read = read_config(unpack(service.export_path(alone.id), tmp_path))
    assert (read.weights, read.task.uploaded) == (None, "films")
