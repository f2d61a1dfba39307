"""The figure of a front: layer by layer, from what is not comparable up to the knee."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from nas.plot.marks import GREY, INK, Marks, dot
from nas.plot.page import mark_id
from nas.plot.plane import Plane, logarithmic, maximised
from nas.summary import label, short

if TYPE_CHECKING:
    from nas.schemas import Front, Job, Trial

INCHES = (10.6, 6.4)
LEFT, BOTTOM, WIDTH, HEIGHT = 0.085, 0.1, 0.635, 0.765  # of the axes, in parts of the figure
NOTE = (112.0, 64.0)  # the knee's note in points
MARGIN = 0.08  # around the trials, in parts of their range

Style = dict[str, Any]


def draw(job: Job, front: Front, trials: list[Trial], feasible: Callable[[Trial], bool]) -> Figure:
    """A front among the job's trials, of which some are not ``feasible``."""
    plane = Plane.of(front.objectives)
    members = [t for t in front.items if plane.shows(t)]
    known = {t.id for t in members}
    others = [t for t in trials if plane.shows(t) and t.id not in known]
    partial = [t for t in others if t.fidelity < 1]
    dominated = [t for t in others if t.fidelity >= 1 and feasible(t)]
    outside = [t for t in others if t.fidelity >= 1 and not feasible(t)]
    drawing = _Drawing(plane, members, dominated)
    # unfinished training must not squeeze what is compared: the view is that of full fidelity
    drawing.look_at(members + dominated or outside or partial)
    drawing.partial(partial)
    drawing.outside(outside)
    drawing.dominated()
    drawing.homogeneous([t for t in front.homogeneous if plane.shows(t)])
    drawing.front()
    drawing.knee(front.knee)
    drawing.label_axes()
    compared = f"{len(members)} on the front of {len(members) + len(dominated)}"
    drawing.head(job, front, f"{compared} within the bounds" if outside else compared)
    drawing.legends()
    return drawing.figure


class _Drawing:
    """A figure under construction: each method adds a layer and its line in the legend."""

    def __init__(self, plane: Plane, members: list[Trial], dominated: list[Trial]) -> None:
        self._plane, self._members, self._dominated = plane, members, dominated
        self.figure = Figure(figsize=INCHES, facecolor="white")
        FigureCanvasAgg(self.figure)
        self._axes = self.figure.add_axes((LEFT, BOTTOM, WIDTH, HEIGHT))
        self._lines: list[Line2D] = []
        self._marks = Marks(plane, [*members, *dominated])

    def look_at(self, trials: list[Trial]) -> None:
        """Choose the scales and limits that show these trials."""
        axes, plane = self._axes, self._plane
        for name, set_scale, set_limits in (
            (plane.x, axes.set_xscale, axes.set_xlim),
            (plane.y, axes.set_yscale, axes.set_ylim),
        ):
            values = [t.metrics[name] for t in trials]
            if not values:
                continue
            low, high = min(values), max(values)
            if logarithmic(name) and low > 0:
                factor = max((high / low) ** MARGIN, 1.05)
                set_scale("log")
                set_limits(low / factor, high * factor)
            else:
                margin = MARGIN * (high - low) or abs(high) * MARGIN or 1.0
                set_limits(low - margin, high + margin)

    def partial(self, trials: list[Trial]) -> None:
        """What has not finished its training, as faint dots."""
        style: Style = {"marker": ".", "color": "#c4c4c4", "markersize": 4}
        self._backdrop(trials, style, "lower fidelity (not comparable)")

    def outside(self, trials: list[Trial]) -> None:
        """What breaks a bound, crossed out."""
        style: Style = {"marker": "x", "color": "#9a9a9a", "markersize": 5}
        self._backdrop(trials, style, "outside the bounds")

    def dominated(self) -> None:
        """What was compared and is not on the front."""
        for trial in self._dominated:
            self._marks.put(self._axes, trial, alpha=0.3, zorder=3, edge="none")
        if self._dominated:
            self._lines.append(dot(GREY, "dominated", alpha=0.4))

    def homogeneous(self, trials: list[Trial]) -> None:
        """The front of architectures with the same block in every layer."""
        if trials:
            style: Style = {"color": "#6b6b6b", "linestyle": (0, (4, 3)), "linewidth": 1.2}
            points = self._plane.points(self._plane.skyline(trials))
            self._axes.plot(*points, drawstyle="steps-post", zorder=2, **style)
            self._lines.append(Line2D([], [], label="best homogeneous (same block)", **style))

    def front(self) -> None:
        """The members, those that lead in this plane joined by a staircase."""
        plane, axes = self._plane, self._axes
        skyline = plane.skyline(self._members)
        axes.plot(*plane.points(skyline), drawstyle="steps-post", color=INK, lw=1.4, zorder=4)
        for trial in self._members:
            interval = (trial.verified or {}).get(plane.y)
            if interval and interval.low is not None and interval.high is not None:
                x, _ = plane.at(trial)
                axes.vlines(x, interval.low, interval.high, color=INK, lw=1, zorder=5)
            self._marks.put(axes, trial, alpha=1, zorder=6, edge=INK, gid=mark_id(trial))
        lines = [dot(GREY, "Pareto front", edge=INK, line=True)]
        if len(skyline) < len(self._members):
            lines.append(dot(GREY, "on it by another objective", edge=INK))
        if any(plane.y in (t.verified or {}) for t in self._members):
            lines.append(dot(INK, "verified: 95 % interval over fresh seeds", marker="|", edge=INK))
        self._lines[:0] = lines

    def knee(self, identifier: str | None) -> None:
        """A note at the knee."""
        for trial in self._members:
            if trial.id != identifier:
                continue
            named = [name for name in self._plane.metrics if name in trial.metrics]
            lines = [f"{name} {short(name, trial.metrics[name])}" for name in named]
            at = self._plane.at(trial)
            self._axes.annotate(
                "\n".join([f"knee: trial {trial.number}", *lines]),
                at,
                xytext=self._free_place(at),
                textcoords="offset points",
                fontsize=9,
                zorder=8,
                bbox={"boxstyle": "round,pad=0.4", "fc": "white", "ec": "#bbbbbb"},
                arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkB": 8, "lw": 1},
            )

    def label_axes(self) -> None:
        """What the axes show, and round numbers along them."""
        axes, plane = self._axes, self._plane
        for name, axis in ((plane.x, axes.xaxis), (plane.y, axes.yaxis)):
            _number(axis, name)
            axis.set_label_text(f"{label(name)}, {'more' if maximised(name) else 'less'} is better")
        axes.grid(color="#ececec", lw=0.8)
        axes.set_axisbelow(True)

    def head(self, job: Job, front: Front, compared: str) -> None:
        """The title, and what was searched."""
        self.figure.text(LEFT, 0.945, f"{job.name}: Pareto front", size=15, weight="bold")
        self.figure.text(LEFT, 0.9, _subtitle(job, front, compared), color="#555555")
        if not self._members:
            middle = LEFT + WIDTH / 2, BOTTOM + HEIGHT / 2
            self.figure.text(*middle, "no trial is on the front yet", ha="center")

    def legends(self) -> None:
        """Legends in a column beside the axes, each under the one before."""
        top = 1.0
        for title, lines in [("", self._lines), *self._marks.legends()]:
            if not lines:
                continue
            legend = self._axes.legend(
                handles=lines,
                title=title or None,
                loc="upper left",
                bbox_to_anchor=(1.02, top),
                frameon=False,
                fontsize=9,
                title_fontproperties={"weight": "bold", "size": 9},
                alignment="left",
                borderaxespad=0,
                labelspacing=0.55,
            )
            self._axes.add_artist(legend)
            box = legend.get_window_extent()
            top = self._axes.transAxes.inverted().transform((0, box.y0))[1] - 0.03

    def _backdrop(self, trials: list[Trial], style: Style, text: str) -> None:
        (left, right), (low, high) = self._axes.get_xlim(), self._axes.get_ylim()
        placed = [(t, *self._plane.at(t)) for t in trials]
        seen = [t for t, x, y in placed if left <= x <= right and low <= y <= high]
        if seen:
            self._axes.plot(*self._plane.points(seen), linestyle="", zorder=1, **style)
            self._lines.append(Line2D([], [], linestyle="", label=text, **style))

    def _free_place(self, at: tuple[float, float]) -> tuple[float, float]:
        """Where a note at this point covers the fewest trials; an offset in points."""
        scale = self.figure.dpi / 72
        pixels = self._axes.transData.transform
        x, y = pixels(at)
        marks = [pixels(self._plane.at(t)) for t in (*self._members, *self._dominated)]
        frame = self._axes.get_window_extent()
        width, height = NOTE[0] * scale, NOTE[1] * scale

        def covered(offset: tuple[float, float]) -> int:
            left, low = x + offset[0] * scale, y + offset[1] * scale
            inside = frame.contains(left, low) and frame.contains(left + width, low + height)
            hit = sum(left < px < left + width and low < py < low + height for px, py in marks)
            return int(hit) + (0 if inside else len(marks))

        # beyond the front there is nothing in two dimensions, so that side comes first
        across, up = (-150.0, 40.0, -190.0, 90.0, -50.0), (-100.0, -140.0, 40.0, 90.0)
        if maximised(self._plane.y):
            up = (40.0, 90.0, -100.0, -140.0)
        return min(((dx, dy) for dy in up for dx in across), key=covered)


def _number(axis: Axis, metric: str) -> None:
    if axis.get_scale() != "log":
        axis.set_major_locator(MaxNLocator(8))
        return
    low, high = axis.get_view_interval()
    decades = high / low
    some = (1.0, 2.0, 5.0) if decades > 6 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 300 else some))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(metric, value)))


def _tick(metric: str, value: float) -> str:
    text = short(metric, value)
    return text.rstrip("0").rstrip(".") if "." in text and text[-1].isdigit() else text


def _subtitle(job: Job, front: Front, compared: str) -> str:
    task: Mapping[str, Any] = job.request.get("task", {})
    steps = job.request.get("fidelity", {}).get("max_steps")
    batch = job.request.get("training", {}).get("batch_size")
    parts: Sequence[str] = (
        " ".join(str(task[key]) for key in ("name", "dataset") if key in task),
        f"batch of {batch}" if batch else "",
        f"{steps} steps" if steps else "",
        compared,
        f"hypervolume {front.hypervolume:.4f}",
    )
    return "  ·  ".join(part for part in parts if part)
