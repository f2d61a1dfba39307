"""The documents that cross the border: job file, requests, responses, for api, client, cli."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from nas.catalogue.metrics import METRICS
from nas.catalogue.strategies import AnyStrategy, ParetoSearch
from nas.catalogue.tasks import AnyTask, DataKind
from nas.states import EndedBy, ExportState, JobState, TrialState
from search_spaces.architecture import Architecture
from search_spaces.space import SpaceDefinition
from search_spaces.values import Value

MetricName: TypeAlias = Annotated[str, Field(json_schema_extra={"enum": list(METRICS)})]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
SpaceName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}(@[0-9]{1,6})?$")]


# --- the job file -----------------------------------------------------------------------------


class Constraint(Value):
    """A bound on a metric, in its unit; at least one of ``min`` and ``max``."""

    metric: MetricName
    min: float | None = None
    max: float | None = None


class TrainingRecipe(Value):
    """How every trial is trained. The learning rate is that of width 64; it scales with 1 / width.

    Warm-up and cosine decay span ``fidelity.max_steps``, whatever the rung.
    """

    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.002
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    evaluation_batches: Annotated[int, Field(ge=1, le=10_000)] = 16


class Fidelity(Value):
    """Rungs: ``max_steps`` divided by the reduction factor again and again, down to ``min_steps``.

    scheme: ``halving`` begins each trial with the lowest rung; ``hyperband`` draws the rung that it
    begins with, so that all rungs get as much training; ``full`` has no rungs but the last, and
    ``min_steps`` means nothing then.
    audit: the share of trials taken to full fidelity whatever their rank.
    """

    scheme: Literal["halving", "hyperband", "full"] = "halving"

    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 270
    min_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 30
    reduction_factor: Annotated[int, Field(ge=2, le=10)] = 3
    audit: Annotated[float, Field(ge=0, le=1)] = 0.1

    def rungs(self) -> tuple[int, ...]:
        """Training steps of each rung, ascending; the last is full fidelity."""
        steps = [self.max_steps]
        least = self.max_steps if self.scheme == "full" else self.min_steps
        while steps[0] // self.reduction_factor >= least:
            steps.insert(0, steps[0] // self.reduction_factor)
        return tuple(steps)


class Budget(Value):
    """When asking ends: whichever bound comes first. Reused trials and verification are free.

    full_trainings counts training steps divided by ``fidelity.max_steps``.
    tolerance: asking ends when no architecture is expected to add this share to the hypervolume.
    Only some strategies estimate that, and it comes on top of another bound.
    """

    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    wall_seconds: Annotated[float, Field(gt=0)] | None = None
    full_trainings: Annotated[float, Field(gt=0)] | None = None
    energy_kwh: Annotated[float, Field(gt=0)] | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None


class Verification(Value):
    """How many members of the front are trained again, with how many fresh seeds (0: none).

    The best homogeneous architecture comes on top. ``share`` bounds what it costs, as a part of
    what the search has cost. On each of the tasks in ``also`` the members are trained once, which
    tells whether that task ranks them alike.
    """

    members: Annotated[int, Field(ge=0, le=100)] = 5
    seeds: Annotated[int, Field(ge=0, le=10)] = 2
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    also: Annotated[tuple[AnyTask, ...], Field(max_length=3)] = ()


class Resources(Value):
    """What a job takes: trials side by side, CPU threads and GPUs for each."""

    trials_at_once: Annotated[int, Field(ge=1, le=1024)] = 2
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    gpus: Annotated[float, Field(ge=0, le=16)] = 0


class JobRequest(Value):
    """A search job. Only ``task`` is required; an unknown key is an error."""

    name: Name = "search"
    project: Name = "default"
    task: AnyTask
    space: SpaceName | SpaceDefinition | None = None
    """A preset (name or name@version) or a definition; by default the task's kind of preset."""
    objectives: Annotated[tuple[MetricName, ...], Field(min_length=1, max_length=5)] = (
        "loss",
        "latency_ms",
        "parameters",
    )
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=20)] = ()
    strategy: AnyStrategy = ParetoSearch()
    training: TrainingRecipe = TrainingRecipe()
    fidelity: Fidelity = Fidelity()
    budget: Budget = Budget(trials=48)
    verification: Verification = Verification()
    resources: Resources = Resources()
    reuse: bool = True
    inherit: bool = False
    """Whether a trial starts from the weights of its closest trained relative, where it has one."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @property
    def named_metrics(self) -> frozenset[str]:
        """What it optimises or bounds: what every result must have."""
        return frozenset((*self.objectives, *(bound.metric for bound in self.constraints)))


# --- requests -----------------------------------------------------------------------------------


class ExportRequest(Value):
    """Which trial, by id or as ``knee`` or ``best:<metric>``, and in which format."""

    trial: Annotated[str, Field(min_length=1, max_length=64)] = "knee"
    format: Literal["config", "huggingface"] = "config"


class ProfileRequest(Value):
    """Architectures to price without training, and the shape of what they would be fed."""

    architectures: Annotated[tuple[Architecture, ...], Field(min_length=1, max_length=2000)]
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    sequence_length: Annotated[int, Field(ge=1, le=1_048_576)] = 512
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    num_outputs: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    causal: bool = True


# --- responses ----------------------------------------------------------------------------------


class Response(BaseModel):
    """What the service answers; readers ignore keys that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ErrorItem(Response):
    """One fault in a request."""

    pointer: str
    message: str
    allowed: list[str] = []


class ProblemDocument(Response):
    """RFC 9457 problem+json."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ErrorItem] = []


class Progress(Response):
    """How far a job is. ``spent`` counts full-training equivalents; times are in seconds.

    ended_by: for what no new trial is asked any more, a bound of the budget or ``space`` when there
    is nothing left to ask.
    """

    trials: dict[TrialState, int]
    phase: str
    rung_counts: list[int]
    rung_steps: list[int]
    spent: float
    fraction: float
    elapsed_seconds: float
    eta_seconds: float | None
    ended_by: EndedBy | None = None
    best: dict[str, float]


class Bill(Response):
    """What a job has cost so far, verification included.

    Energy is ``measured`` by the machine's counters, ``estimated`` from core-seconds where there
    are none, or partly so. Devices are GPUs for jobs that take any, else cores.
    """

    core_seconds: float
    search_core_seconds: float
    verification_core_seconds: float
    device_seconds: float = 0.0
    energy_kwh: float
    energy_source: Literal["estimated", "measured", "partly measured"]
    co2_kg: float
    co2_kg_per_kwh: float = 0.0
    money: float
    currency: str


class Job(Response):
    """A submitted search."""

    id: str
    name: str
    project: str
    state: JobState
    request: dict[str, Any]
    space: str
    progress: Progress
    bill: Bill
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class CurvePoint(Response):
    """A trial's metrics at one rung."""

    rung: int
    steps: int
    metrics: dict[str, float]


class Interval(Response):
    """A mean of n repetitions and its 95 % interval, whose spread is pooled over a job's members.

    ``low`` and ``high`` are null where nothing was repeated.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


class Trial(Response):
    """One architecture in one job. ``rung`` is the last one finished, ``fidelity`` its fraction.

    ``verified`` is of fresh seeds on the validation split, its latency of rounds in which all
    verified members ran; ``tested`` is of the same seeds on the test split.  ``parent`` is the
    trial whose weights it started from, if it did not start from scratch.
    """

    id: str
    job: str
    number: int
    architecture: dict[str, Any]
    fingerprint: str
    origin: str
    parent: str | None = None
    metrics: dict[str, float]
    rung: int | None
    fidelity: float
    state: TrialState
    error: str | None
    verified: dict[str, Interval] | None
    tested: dict[str, Interval] | None = None
    seed: int
    created_at: datetime
    finished_at: datetime | None


class TrialDetail(Trial):
    """A trial with its learning curve over the rungs."""

    curve: list[CurvePoint]


class JobPage(Response):
    """Jobs, newest first."""

    items: list[Job]
    next: str | None


class TrialPage(Response):
    """A page of trials."""

    items: list[Trial]
    next: str | None


class Front(Response):
    """A Pareto front, sorted by the first objective."""

    objectives: list[str]
    items: list[Trial]
    hypervolume: float
    reference_point: dict[str, float]
    knee: str | None
    homogeneous: list[Trial]


class TaskFront(Front):
    """The front of several jobs of one task, whose ids are given, the deciding job first."""

    task: str
    jobs: list[str]


class Export(Response):
    """A requested export."""

    id: str
    job: str
    trial: str
    format: str
    state: ExportState
    error: str | None
    filename: str | None
    created_at: datetime
    finished_at: datetime | None


class Dataset(Response):
    """A user's own data, found by name and by the SHA-256 of its content."""

    name: str
    kind: DataKind
    sha256: str
    bytes: int
    created_at: datetime


class DatasetPage(Response):
    """Data sets, by name."""

    items: list[Dataset]
    next: str | None


class LatencyError(Response):
    """How far predictions of a metric hold, tested on whole models that the fit had not seen.

    ``relative_error``: the mean. Nine of ten measurements lie between ``low`` and ``high`` times
    what is predicted.
    """

    relative_error: float
    low: float
    high: float


class LatencySource(Response):
    """What predicted latencies are of. ``alone``: whether nothing else ran on the device while it
    was measured. ``errors``: by metric."""

    device: str
    alone: bool
    errors: dict[str, LatencyError]


class ProfileResponse(Response):
    """Costs by metric name, in the order of the request; latency where a device table exists."""

    items: list[dict[str, float]]
    latency: LatencySource | None = None


class Event(Response):
    """Something that happened in a job; ``seq`` numbers them without gaps from 1."""

    seq: int
    type: str
    at: datetime
    data: dict[str, Any]

    @property
    def last(self) -> bool:
        """Whether it tells that the job has ended; only exports may still follow."""
        return self.type == "job" and JobState(self.data["state"]).final
