"""What a task is called, what it may be given, and the shape of its model's input and output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from search_spaces.errors import Problem
from search_spaces.validation import refusal
from search_spaces.values import Value

BYTES = 256
DIGITS_PIXELS = 64
LISTOPS_TOKENS = 16  # 10 digits, 4 operators, the closing bracket, padding
PYTHON_SOURCE = "python-source"
PYTHON_PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")
"""Of the standard library, on every machine, of many files."""
HELD_OUT_SEQUENCES = 4  # that each held-out part of a text must hold, at least
HELD_OUT_BYTES = 1 << 22  # and this is enough for it, however long the text


DataKind: TypeAlias = Literal["text", "labelled"]
"""Bytes of a text, or rows of a text and its label."""
DatasetName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


@dataclass(frozen=True)
class TaskShape:
    """What a model for a task must take and give: enough to build it and to price it."""

    vocab_size: int
    num_outputs: int
    sequence_length: int
    causal: bool
    head: Literal["token", "pooled"]

    @property
    def decodes(self) -> bool:
        """Whether models for it answer token by token, so that they have a state and a step."""
        return self.causal and self.head == "token"


class TaskConfig(Value):
    """A task with its settings. ``nas/tasks/<name>.py`` builds its data."""

    title: ClassVar[str]
    description: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "expected_depth", "expected_flops")
    """What each rung measures, the costly ones where the job names them."""
    data_kind: ClassVar[DataKind | None] = None
    """Which uploaded data it takes."""
    first_byte: ClassVar[int | None] = None
    """The token of byte 0, where its tokens are the bytes of a text."""

    name: str

    @property
    def uploaded(self) -> str | None:
        """The uploaded data set that it needs, by name."""
        return None

    def minimum_bytes(self) -> int:
        """The least that an uploaded data set must hold."""
        return 1

    def shape(self) -> TaskShape:
        """Vocabulary, outputs, length, causal or not, head."""
        raise AssertionError("every task states its shape")

    def labels(self) -> tuple[str, ...] | None:
        """The names of its classes, in their order; None: it has none, or its data name them."""
        return None


class DataTaskConfig(TaskConfig):
    """A task over the standard library's source, or over data that a user has uploaded."""

    dataset: DatasetName = PYTHON_SOURCE

    @property
    def uploaded(self) -> str | None:
        """The uploaded data set that it needs, by name."""
        return None if self.dataset == PYTHON_SOURCE else self.dataset


class TextLM(DataTaskConfig):
    """Byte-level causal language modelling."""

    title: ClassVar[str] = "Text language model"
    description: ClassVar[str] = (
        "Byte-level next-token prediction over a text: python-source (the standard library's own "
        "source, present on every machine) or a data set that you uploaded."
    )
    metrics: ClassVar[tuple[str, ...]] = (*TaskConfig.metrics, "effective_context")

    data_kind: ClassVar[DataKind | None] = "text"
    first_byte: ClassVar[int | None] = 0

    name: Literal["text_lm"] = "text_lm"
    sequence_length: Annotated[int, Field(ge=16, le=65536)] = 512

    def shape(self) -> TaskShape:
        """What its model takes and gives."""
        return TaskShape(BYTES, BYTES, self.sequence_length, causal=True, head="token")

    def held_out_bytes(self, size: int) -> int:
        """How much of a text of that size is validation, and as much again is test: a tenth."""
        return min(size // 10, HELD_OUT_BYTES)

    def held_out_minimum(self) -> int:
        """The least that validation and test must hold: a few sequences and one more target."""
        return HELD_OUT_SEQUENCES * self.sequence_length + 1

    def minimum_bytes(self) -> int:
        """The least text that can be split: a shorter one is refused."""
        return 10 * self.held_out_minimum()


class TextClassification(DataTaskConfig):
    """Classification of texts, byte by byte."""

    title: ClassVar[str] = "Text classification"
    description: ClassVar[str] = (
        "The label of a text, read as bytes: of python-source, which package of the standard "
        "library a piece of source comes from, or of a labelled data set that you uploaded (JSON "
        "lines, CSV or Parquet with the columns text and label)."
    )
    data_kind: ClassVar[DataKind | None] = "labelled"
    first_byte: ClassVar[int | None] = 1

    name: Literal["text_classification"] = "text_classification"
    classes: Annotated[int, Field(ge=2, le=1024)] = len(PYTHON_PACKAGES)
    sequence_length: Annotated[int, Field(ge=16, le=65536)] = 512

    @model_validator(mode="after")
    def _the_source_has_its_packages(self) -> Self:
        if self.uploaded is None and self.classes != len(PYTHON_PACKAGES):
            allowed = (str(len(PYTHON_PACKAGES)),)
            message = f"{PYTHON_SOURCE} has {len(PYTHON_PACKAGES)} labels"
            raise refusal("classes", Problem("/classes", message, allowed))
        return self

    def shape(self) -> TaskShape:
        """What its model takes and gives."""
        return TaskShape(BYTES + 1, self.classes, self.sequence_length, causal=False, head="pooled")

    def labels(self) -> tuple[str, ...] | None:
        """Packages, in alphabetical order."""
        return None if self.uploaded else tuple(sorted(PYTHON_PACKAGES))


class ImageClassification(TaskConfig):
    """Images as sequences of pixels, one class each."""

    title: ClassVar[str] = "Image classification"
    description: ClassVar[str] = (
        "Ten handwritten digits (scikit-learn's, 1,797 images of 8 × 8) as sequences of 64 pixels "
        "of 17 grey levels."
    )

    name: Literal["image_classification"] = "image_classification"
    dataset: Literal["digits"] = "digits"

    def shape(self) -> TaskShape:
        """What its model takes and gives."""
        return TaskShape(17, 10, DIGITS_PIXELS, causal=False, head="pooled")

    def labels(self) -> tuple[str, ...] | None:
        """Digits."""
        return tuple("0123456789")


class ListOps(TaskConfig):
    """Nested list operations as Long Range Arena generates them."""

    title: ClassVar[str] = "ListOps"
    description: ClassVar[str] = (
        "Evaluate nested MIN, MAX, MED and SM over digits (Long Range Arena, arXiv:2011.04006), "
        "generated from a seed; lengths lie strictly between min_length and max_length."
    )

    name: Literal["listops"] = "listops"
    min_length: Annotated[int, Field(ge=4, le=2666)] = 500
    max_length: Annotated[int, Field(ge=16, le=4000)] = 2000
    train_examples: Annotated[int, Field(ge=16, le=96_000)] = 96_000
    evaluation_examples: Annotated[int, Field(ge=16, le=20_000)] = 2_000

    @model_validator(mode="after")
    def _some_lists_fit(self) -> Self:
        least = max(16, -(-3 * self.min_length // 2))
        if self.max_length < least:
            raise refusal(
                "lengths",
                Problem(
                    "/max_length",
                    f"too few lists have more than {self.min_length} and fewer than "
                    f"{self.max_length} tokens",
                    (f"{least} or more (1.5 × min_length)",),
                ),
            )
        return self

    def shape(self) -> TaskShape:
        """What its model takes and gives."""
        return TaskShape(LISTOPS_TOKENS, 10, self.max_length, causal=False, head="pooled")

    def labels(self) -> tuple[str, ...] | None:
        """What a list comes to."""
        return tuple("0123456789")


class GeneratedTaskConfig(TaskConfig):
    """Synthetic sequences without end, a target at some of the positions."""

    sequence_length: int
    vocab_size: int
    evaluation_examples: Annotated[int, Field(ge=16, le=4096)] = 1_000

    def shape(self) -> TaskShape:
        """What its model takes and gives."""
        size = self.vocab_size
        return TaskShape(size, size, self.sequence_length, causal=True, head="token")


class Mqar(GeneratedTaskConfig):
    """Multi-query associative recall."""

    title: ClassVar[str] = "Associative recall (MQAR)"
    description: ClassVar[str] = (
        "After a list of keys with their values, name the value of each key that comes again "
        "(Zoology, arXiv:2312.04927), generated from a seed. Most of the gap between attention and "
        "its substitutes in language modelling is recall."
    )

    name: Literal["mqar"] = "mqar"
    sequence_length: Annotated[int, Field(ge=8, le=8192)] = 128
    pairs: Annotated[int, Field(ge=1, le=4096)] = 8
    vocab_size: Annotated[int, Field(ge=8, le=65536)] = 8192

    @model_validator(mode="after")
    def _all_pairs_fit(self) -> Self:
        if 4 * self.pairs > self.sequence_length:
            allowed = (f"at most {self.sequence_length // 4} (a quarter of sequence_length)",)
            problem = Problem("/pairs", "keys, values and queries do not fit", allowed)
            raise refusal("pairs", problem)
        if 2 * self.pairs > self.vocab_size - 2:
            allowed = (f"at least {2 * self.pairs + 2}",)
            raise refusal("pairs", Problem("/vocab_size", "there are not enough keys", allowed))
        return self


class SelectiveCopying(GeneratedTaskConfig):
    """Selective copying."""

    title: ClassVar[str] = "Selective copying"
    description: ClassVar[str] = (
        "Repeat, in their order, the tokens that stood among blanks (MAD, arXiv:2403.17844), "
        "generated from a seed."
    )

    name: Literal["selective_copying"] = "selective_copying"
    sequence_length: Annotated[int, Field(ge=8, le=8192)] = 256
    copied: Annotated[int, Field(ge=1, le=4096)] = 16
    vocab_size: Annotated[int, Field(ge=4, le=65536)] = 16

    @model_validator(mode="after")
    def _all_tokens_fit(self) -> Self:
        if 2 * self.copied + 1 > self.sequence_length:
            most = (self.sequence_length - 1) // 2
            allowed = (f"at most {most} (they stand there twice, and a signal between)",)
            raise refusal("copied", Problem("/copied", "the tokens do not fit", allowed))
        return self


class NoisyRecall(GeneratedTaskConfig):
    """Noisy in-context recall."""

    title: ClassVar[str] = "Noisy recall"
    description: ClassVar[str] = (
        "Name the values of keys that were seen before, with noise between the pairs (MAD, "
        "arXiv:2403.17844), generated from a seed."
    )

    name: Literal["noisy_recall"] = "noisy_recall"
    sequence_length: Annotated[int, Field(ge=8, le=8192, multiple_of=2)] = 128
    vocab_size: Annotated[int, Field(ge=4, le=4096)] = 32
    noise_tokens: Annotated[int, Field(ge=1, le=4096)] = 16
    noise: Annotated[float, Field(ge=0, le=0.9)] = 0.2

    @model_validator(mode="after")
    def _some_keys_are_left(self) -> Self:
        if self.noise_tokens > self.vocab_size - 2:
            allowed = (f"at most {self.vocab_size - 2}",)
            problem = Problem("/noise_tokens", "no key and value would be left", allowed)
            raise refusal("noise", problem)
        return self


TASKS: dict[str, type[TaskConfig]] = {
    t.model_fields["name"].default: t
    for t in (
        TextLM,
        TextClassification,
        ImageClassification,
        ListOps,
        Mqar,
        SelectiveCopying,
        NoisyRecall,
    )
}

if TYPE_CHECKING:
    AnyTask = TaskConfig
else:
    AnyTask = Annotated[
        TextLM
        | TextClassification
        | ImageClassification
        | ListOps
        | Mqar
        | SelectiveCopying
        | NoisyRecall,
        Field(discriminator="name"),
    ]
