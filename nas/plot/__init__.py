"""The picture of a Pareto front as PNG, SVG or a self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from nas.plot.figure import draw
from nas.plot.page import page
from search_spaces.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from nas.schemas import Front, Job, Trial

FORMATS = (".png", ".svg", ".html")
DOTS_PER_INCH = 160
STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "svg.fonttype": "none",
    "svg.hashsalt": "paretoformer",
}
# the same picture is the same file, and it mentions no other place
NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def check_format(path: Path) -> None:
    """Refuse a file name that does not say PNG, SVG or HTML.

    Raises:
        InvalidInput: with the suffixes that are allowed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput([Problem("", f"cannot draw a plot as {path.name!r}", FORMATS)])


def draw_front(
    path: Path,
    *,
    job: Job,
    front: Front,
    trials: Iterable[Trial] = (),
    feasible: Callable[[Trial], bool] = lambda trial: True,
) -> None:
    """Write the picture of a front among its trials; the format follows from the file's suffix.

    feasible: whether a trial meets the bounds under which the front was asked for.

    Raises:
        InvalidInput: the suffix is none of ``FORMATS``.
    """
    check_format(path)
    with matplotlib.rc_context(STYLE):
        figure = draw(job, front, list(trials), feasible)
        if path.suffix.lower() == ".png":
            figure.savefig(path, format="png", dpi=DOTS_PER_INCH)
            return
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    text = buffer.getvalue()
    if path.suffix.lower() == ".html":
        text = page(text, job, front)
    path.write_text(text, encoding="utf-8")
