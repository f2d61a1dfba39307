"""The picture of a Pareto front as PNG, SVG or a self-contained HTML page.

x is the first cost among the objectives, y the first quality, size the third objective; colour is
the attention of most layers, the edge that of the second most; the marker's shape is the halting.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from nas.catalogue.metrics import METRICS
from nas.plot_page import page
from nas.summary import attention_counts, halting_type, label, one_line, short
from search_spaces.attention import ATTENTION
from search_spaces.errors import InvalidInput, Problem
from search_spaces.halting import HALTING

if TYPE_CHECKING:
    from nas.schemas import Front, Job, Trial

FORMATS = (".png", ".svg", ".html")
# Okabe & Ito's colours, then Tol's muted ones: told apart with any common colour vision
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#882255", "#56B4E9"),
    *("#D55E00", "#999933", "#332288", "#44AA99", "#661100", "#AA4499", "#117733", "#6699CC"),
)
MARKERS = ("o", "D", "^", "s", "v", "P")
INK, FAINT = "#222222", "#9a9a9a"
SMALLEST, LARGEST = 34.0, 230.0  # marker areas in square points
STYLE: dict[str, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "svg.fonttype": "none",
    "svg.hashsalt": "paretoformer",
}


@dataclass(frozen=True)
class Plane:
    """Which metrics are drawn where; ``size`` is None when there are but two objectives."""

    x: str
    y: str
    size: str | None

    @classmethod
    def of(cls, objectives: Sequence[str]) -> Plane:
        """The plane for these objectives; one alone is set against parameters or loss."""
        costs = [o for o in objectives if o in METRICS and METRICS[o].cost]
        x = (costs or [o for o in objectives[1:]] or ["parameters"])[0]
        rest = [o for o in objectives if o != x]
        y = next((o for o in rest if o not in costs), rest[0] if rest else "loss")
        return cls(x, y, next((o for o in rest if o != y), None))

    def shows(self, trial: Trial) -> bool:
        """Whether a trial has a place in this plane."""
        return self.x in trial.metrics and self.y in trial.metrics


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
        figure = _figure(job, front, [t for t in trials if t.metrics], feasible)
        if path.suffix.lower() == ".png":
            figure.savefig(path, format="png", dpi=160)
            return
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    if path.suffix.lower() == ".html":
        text = page(text, job, front)
    path.write_text(text, encoding="utf-8")


def _figure(
    job: Job, front: Front, trials: list[Trial], feasible: Callable[[Trial], bool]
) -> Figure:
    plane = Plane.of(front.objectives)
    members = [t for t in front.items if plane.shows(t)]
    known = {t.id for t in members}
    others = [t for t in trials if plane.shows(t) and t.id not in known]
    full = [t for t in others if t.fidelity >= 1]
    drawing = _Drawing(plane, members, [t for t in full if feasible(t)])
    drawing.partial([t for t in others if t.fidelity < 1])
    drawing.infeasible([t for t in full if not feasible(t)])
    drawing.dominated()
    drawing.homogeneous([t for t in front.homogeneous if plane.shows(t)])
    drawing.front()
    drawing.knee(front.knee)
    drawing.finish(job, front)
    return drawing.figure


class _Drawing:
    """A figure under construction: each method adds one layer and its line in the legend."""

    def __init__(self, plane: Plane, members: list[Trial], dominated: list[Trial]) -> None:
        self.plane, self.members, self.others = plane, members, dominated
        self.figure = Figure(figsize=(10.6, 6.4), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.085, 0.1, 0.635, 0.765))
        self.lines: list[Line2D] = []
        shown = [*members, *dominated]
        self.size = _areas([t.metrics.get(plane.size, 0.0) for t in shown] if plane.size else [])
        logs = [n for n in (plane.x, plane.y) if n in METRICS and METRICS[n].scale == "log"]
        if plane.x in logs and all(t.metrics[plane.x] > 0 for t in shown):
            self.axes.set_xscale("log")
        if plane.y in logs and all(t.metrics[plane.y] > 0 for t in shown):
            self.axes.set_yscale("log")

        self._limits(shown)

    def partial(self, trials: list[Trial]) -> None:
        if trials:
            style = {"marker": ".", "color": "#c4c4c4", "ms": 4, "ls": "", "zorder": 1}
            self.axes.plot(*self._points(trials), **style)
            self.lines.append(Line2D([], [], **style, label="lower fidelity (not comparable)"))

    def infeasible(self, trials: list[Trial]) -> None:
        if trials:
            style = {"marker": "x", "color": FAINT, "ms": 5, "ls": "", "zorder": 2}
            self.axes.plot(*self._points(trials), **style)
            self.lines.append(Line2D([], [], **style, label="outside the constraints"))

    def dominated(self) -> None:
        for trial in self.others:
            self._mark(trial, alpha=0.3, zorder=3, edge="none")
        if self.others:
            self.lines.append(_dot("#888888", alpha=0.4, label="dominated"))

    def homogeneous(self, trials: list[Trial]) -> None:
        if trials:
            style = {"color": "#6b6b6b", "ls": (0, (4, 3)), "lw": 1.2, "zorder": 2}
            marks = {"marker": "o", "ms": 8, "mfc": "none", "mew": 0.9}
            skyline = _skyline(trials, self.plane)
            self.axes.plot(*self._points(skyline), drawstyle="steps-post", **style, **marks)
            self.lines.append(Line2D([], [], **style, label="best homogeneous (same block)"))

    def front(self) -> None:
        skyline = _skyline(self.members, self.plane)
        style = {"color": INK, "lw": 1.4, "zorder": 4}
        self.axes.plot(*self._points(skyline), drawstyle="steps-post", **style)
        for trial in self.members:
            self._verified(trial)
            self._mark(trial, alpha=1.0, zorder=6, edge=INK, gid=f"trial-{trial.id}")
        self.lines.insert(0, _dot("#888888", edge=INK, label="Pareto front", line=INK))
        if len(skyline) < len(self.members):
            note = "on it by another objective"
            self.lines.insert(1, _dot("#888888", edge=INK, label=note))

    def knee(self, identifier: str | None) -> None:
        for trial in self.members:
            if trial.id == identifier:
                values = [f"{n} {short(n, trial.metrics[n])}" for n in _named(self.plane, trial)]
                at = (trial.metrics[self.plane.x], trial.metrics[self.plane.y])
                self.axes.annotate(
                    f"knee: trial {trial.number}\n" + "\n".join(values),
                    at,
                    xytext=self._free_place(at),
                    textcoords="offset points",
                    fontsize=9,
                    zorder=8,
                    bbox={"boxstyle": "round,pad=0.4", "fc": "white", "ec": "#bbbbbb"},
                    arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkB": 8, "lw": 1},
                )

    def finish(self, job: Job, front: Front) -> None:
        """Axes, title and legends."""
        axes, plane = self.axes, self.plane
        for axis, name in ((axes.xaxis, plane.x), (axes.yaxis, plane.y)):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=_subdivisions(axis.get_view_interval())))
                axis.set_minor_locator(NullLocator())
                axis.set_major_formatter(FuncFormatter(lambda v, _, name=name: _tick(name, v)))
            else:
                axis.set_major_locator(MaxNLocator(8))
        better = {n: "less is better" for n in (plane.x, plane.y)}
        better |= {n: "more is better" for n in better if _maximised(n)}
        axes.set_xlabel(f"{label(plane.x)}, {better[plane.x]}")
        axes.set_ylabel(f"{label(plane.y)}, {better[plane.y]}")
        axes.grid(color="#ececec", lw=0.8)
        axes.set_axisbelow(True)
        self.figure.text(0.085, 0.945, f"{job.name}: Pareto front", size=15, weight="bold")
        self.figure.text(0.085, 0.9, _subtitle(job, front, len(self.others)), color="#555555")
        if not self.members:
            axes.text(0.5, 0.5, "no trial is on the front yet", transform=axes.transAxes, ha="center")
        self._legends()

    def _legends(self) -> None:
        shown = self._shown()
        attention = {n for t in shown for n in list(attention_counts(t.architecture))[:2]}
        groups: list[tuple[str, list[Line2D]]] = [("", self.lines)]
        dots = [_dot(_colour(n), label=_title(ATTENTION, n)) for n in _ordered(ATTENTION, attention)]
        if any(len(attention_counts(t.architecture)) > 1 for t in shown):
            dots.append(_dot("white", edge="#777777", wide=True, label="edge: second kind, if mixed"))
        groups.append(("attention of most layers", dots))
        halting = _ordered(HALTING, {halting_type(t.architecture) for t in shown})
        shapes = [_dot("#888888", marker=_marker(n), label=_title(HALTING, n)) for n in halting]
        groups.append(("halting", shapes))
        if self.plane.size:
            groups.append((label(self.plane.size), _sizes(self.plane.size, shown, self.size)))
        top = 1.0
        for title, lines in groups:
            if not lines:
                continue
            legend = self.axes.legend(
                handles=lines,
                title=title or None,
                loc="upper left",
                bbox_to_anchor=(1.02, top),
                frameon=False,
                fontsize=9,
                title_fontsize=9,
                alignment="left",
                borderaxespad=0,
                labelspacing=0.55,
            )
            legend.get_title().set_fontweight("bold")
            self.axes.add_artist(legend)
            box = legend.get_window_extent(self.figure.canvas.get_renderer())  # type: ignore[attr-defined]
            top = self.axes.transAxes.inverted().transform((0, box.y0))[1] - 0.03

    def _limits(self, trials: list[Trial]) -> None:
        # unfinished training must not squeeze what is compared: the view is that of full fidelity
        for name, scale, limit in (
            (self.plane.x, self.axes.get_xscale(), self.axes.set_xlim),
            (self.plane.y, self.axes.get_yscale(), self.axes.set_ylim),
        ):
            values = [t.metrics[name] for t in trials]
            if not values:
                continue
            low, high = min(values), max(values)
            if scale == "log":
                factor = max((high / low) ** 0.08, 1.05)
                limit(low / factor, high * factor)
            else:
                margin = 0.08 * (high - low) or abs(high) * 0.05 or 1.0
                limit(low - margin, high + margin)

    def _free_place(self, at: tuple[float, float]) -> tuple[float, float]:
        """Where a note at this point covers the fewest trials; an offset in printer's points."""
        scale = self.figure.dpi / 72
        to_pixels = self.axes.transData.transform
        x, y = to_pixels(at)
        marks = [to_pixels((px, py)) for px, py in zip(*self._points(self._shown()), strict=True)]
        frame = self.axes.get_window_extent()
        width, height = 112 * scale, 64 * scale

        def covered(offset: tuple[float, float]) -> int:
            left, low = x + offset[0] * scale, y + offset[1] * scale
            inside = frame.contains(left, low) and frame.contains(left + width, low + height)
            hit = sum(left < px < left + width and low < py < low + height for px, py in marks)
            return hit + (0 if inside else len(marks))

        # beyond the front there is nothing in two dimensions, so that side comes first
        across, up = (-150.0, 40.0, -190.0, 90.0, -50.0), (-100.0, -140.0, 40.0, 90.0)
        if _maximised(self.plane.y):
            up = (40.0, 90.0, -100.0, -140.0)
        return min(((dx, dy) for dy in up for dx in across), key=covered)

    def _shown(self) -> list[Trial]:
        return [*self.members, *self.others]

    def _points(self, trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        plane = self.plane
        return [t.metrics[plane.x] for t in trials], [t.metrics[plane.y] for t in trials]

    def _mark(
        self, trial: Trial, *, alpha: float, zorder: int, edge: str, gid: str | None = None
    ) -> None:
        kinds = list(attention_counts(trial.architecture))
        mixed = len(kinds) > 1
        self.axes.scatter(
            *self._points([trial]),
            s=self.size(trial.metrics.get(self.plane.size or "", 0.0)),
            c=_colour(kinds[0]),
            marker=_marker(halting_type(trial.architecture)),
            edgecolors=_colour(kinds[1]) if mixed else edge,
            linewidths=2.2 if mixed else 0.8,
            alpha=alpha,
            zorder=zorder,
            gid=gid,
        )

    def _verified(self, trial: Trial) -> None:
        interval = (trial.verified or {}).get(self.plane.y)
        if interval:
            x = trial.metrics[self.plane.x]
            self.axes.vlines(x, interval["low"], interval["high"], color=INK, lw=1, zorder=5)


def _areas(values: list[float]) -> Callable[[float], float]:
    """From a value to a marker's area, over the range of these values."""
    if not values or min(values) == max(values):
        return lambda _: 80.0
    low, high = min(values), max(values)
    return lambda v: SMALLEST + (LARGEST - SMALLEST) * (v - low) / (high - low)


def _sizes(metric: str, trials: list[Trial], area: Callable[[float], float]) -> list[Line2D]:
    values = sorted(t.metrics[metric] for t in trials if metric in t.metrics)
    if not values:
        return []
    picked = dict.fromkeys((values[0], values[len(values) // 2], values[-1]))
    return [_dot("#888888", size=area(v) ** 0.5, label=short(metric, v)) for v in picked]


def _skyline(trials: Sequence[Trial], plane: Plane) -> list[Trial]:
    """The trials that no other beats in x and y, from the best x to the best y."""
    x, y = (-1.0 if _maximised(n) else 1.0 for n in (plane.x, plane.y))
    best: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (x * t.metrics[plane.x], y * t.metrics[plane.y])):
        if not best or y * trial.metrics[plane.y] < y * best[-1].metrics[plane.y]:
            best.append(trial)
    return best


def _subtitle(job: Job, front: Front, dominated: int) -> str:
    task: Mapping[str, Any] = job.request.get("task", {})
    steps = job.request.get("fidelity", {}).get("max_steps")
    batch = job.request.get("training", {}).get("batch_size")
    parts = [
        " ".join(str(task[k]) for k in ("name", "dataset") if k in task),
        f"batch of {batch}" if batch else "",
        f"{len(front.items)} on the front of {len(front.items) + dominated} at full fidelity"
        + (f" ({steps} steps)" if steps else ""),
        f"hypervolume {front.hypervolume:.4f}",
    ]
    return "  ·  ".join(p for p in parts if p)


def _subdivisions(interval: Sequence[float]) -> tuple[float, ...]:
    decades = max(interval) / min(interval)
    if decades > 300:
        return (1.0,)
    return (1.0, 2.0, 5.0) if decades > 6 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)


def _tick(metric: str, value: float) -> str:
    text = short(metric, value)
    return text.rstrip("0").rstrip(".") if "." in text and text[-1].isdigit() else text


def _named(plane: Plane, trial: Trial) -> list[str]:
    return [n for n in (plane.y, plane.x, plane.size) if n and n in trial.metrics]


def _maximised(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].direction == "maximize"


def _ordered(registry: Mapping[str, Any], names: set[str]) -> list[str]:
    """These names in the registry's order; what an older or newer service knows comes last."""
    return [n for n in registry if n in names] + sorted(names - set(registry))


def _colour(attention: str) -> str:
    return PALETTE[_place(ATTENTION, attention) % len(PALETTE)]


def _marker(halting: str) -> str:
    return MARKERS[_place(HALTING, halting) % len(MARKERS)]


def _place(registry: Mapping[str, Any], name: str) -> int:
    return list(registry).index(name) if name in registry else len(registry)


def _title(registry: Mapping[str, Any], name: str) -> str:
    return str(registry[name].title) if name in registry else name


def _dot(
    colour: str,
    *,
    label: str,
    marker: str = "o",
    edge: str = "none",
    wide: bool = False,
    size: float = 8.0,
    alpha: float = 1.0,
    line: str = "none",
) -> Line2D:
    return Line2D(
        [],
        [],
        label=label,
        marker=marker,
        color=line,
        ls="-" if line != "none" else "",
        mfc=colour,
        mec=edge,
        mew=2.2 if wide else 0.8,
        ms=size,
        alpha=alpha,
    )
