"""How a trial looks: colour by attention, shape by halting, size by the third objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nas.plot.plane import Plane
from nas.summary import attention_counts, halting_type, label, short
from search_spaces.attention import ATTENTION
from search_spaces.halting import HALTING

if TYPE_CHECKING:
    from nas.schemas import Trial

# Okabe & Ito's colours, then Tol's muted ones: told apart with any common colour vision
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#882255", "#56B4E9"),
    *("#D55E00", "#999933", "#332288", "#44AA99", "#661100", "#AA4499", "#117733", "#6699CC"),
)
SHAPES = ("o", "D", "^", "s", "v", "P")
INK, GREY = "#222222", "#888888"
SMALLEST, LARGEST, USUAL = 34.0, 230.0, 80.0  # areas in square points
WIDE, NARROW = 2.2, 0.8  # edges in points


class Marks:
    """The marks of these trials; sizes span the values that are among them."""

    def __init__(self, plane: Plane, trials: Sequence[Trial]) -> None:
        self._plane = plane
        self._trials = trials
        size = plane.size
        self._values = sorted(t.metrics[size] for t in trials if size in t.metrics) if size else []

    def put(
        self,
        axes: Axes,
        trial: Trial,
        *,
        alpha: float,
        zorder: int,
        edge: str,
        gid: str | None = None,
    ) -> None:
        """Draw one trial; the edge of a mixed one is the colour of its second attention."""
        kinds = list(attention_counts(trial.architecture))
        mixed = len(kinds) > 1
        axes.scatter(
            *self._plane.points([trial]),
            s=self._area(trial.metrics.get(self._plane.size or "")),
            c=_colour(kinds[0]),
            marker=_shape(halting_type(trial.architecture)),
            edgecolors=_colour(kinds[1]) if mixed else edge,
            linewidths=WIDE if mixed else NARROW,
            alpha=alpha,
            zorder=zorder,
            gid=gid,
        )

    def legends(self) -> list[tuple[str, list[Line2D]]]:
        """What colours, shapes and sizes mean: titles with their lines."""
        counts = [attention_counts(t.architecture) for t in self._trials]
        shown = {kind for count in counts for kind in list(count)[:2]}
        colours = [dot(_colour(n), _title(ATTENTION, n)) for n in _ordered(ATTENTION, shown)]
        if any(len(count) > 1 for count in counts):
            colours.append(dot("white", "edge: second kind, if mixed", edge=GREY, width=WIDE))
        halting = _ordered(HALTING, (halting_type(t.architecture) for t in self._trials))
        shapes = [dot(GREY, _title(HALTING, n), marker=_shape(n)) for n in halting]
        values = self._values
        some = dict.fromkeys((values[0], values[len(values) // 2], values[-1]) if values else ())
        metric = self._plane.size or ""
        sizes = [dot(GREY, short(metric, v), size=self._area(v) ** 0.5) for v in some]
        return [("attention of most layers", colours), ("halting", shapes), (label(metric), sizes)]

    def _area(self, value: float | None) -> float:
        if value is None or not self._values or self._values[0] == self._values[-1]:
            return USUAL
        low, high = self._values[0], self._values[-1]
        return SMALLEST + (LARGEST - SMALLEST) * (value - low) / (high - low)


def dot(
    colour: str,
    text: str,
    *,
    marker: str = "o",
    edge: str = "none",
    width: float = NARROW,
    size: float = 8.0,
    alpha: float = 1.0,
    line: bool = False,
) -> Line2D:
    """A line of a legend: a mark, with a line through it if asked."""
    return Line2D(
        [],
        [],
        label=text,
        marker=marker,
        color=INK,
        linestyle="-" if line else "",
        markerfacecolor=colour,
        markeredgecolor=edge,
        markeredgewidth=width,
        markersize=size,
        alpha=alpha,
    )


def _ordered(registry: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """These names in the registry's order; what only another release knows comes last."""
    found = set(names)
    return [n for n in registry if n in found] + sorted(found - set(registry))


def _colour(attention: str) -> str:
    return PALETTE[_place(ATTENTION, attention) % len(PALETTE)]


def _shape(halting: str) -> str:
    return SHAPES[_place(HALTING, halting) % len(SHAPES)]


def _place(registry: Mapping[str, Any], name: str) -> int:
    return list(registry).index(name) if name in registry else len(registry)


def _title(registry: Mapping[str, Any], name: str) -> str:
    return str(registry[name].title) if name in registry else name
