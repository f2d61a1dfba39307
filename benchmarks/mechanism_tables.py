"""The tables and the plot of `make bench-mechanisms`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.mechanism_runs import BASELINES, OURS, Measured, Point, Subject
from benchmarks.references import REFERENCES, SDPA
from nas.plot import DOTS_PER_INCH, STYLE
from nas.plot.marks import INK, PALETTE
from search_spaces.attention import ATTENTION

MIB = 2**20
FITTED_FROM = 1024  # shorter sequences show the constant part of the memory, not its growth
LEAST = 0.01  # of SDPA's time: less than this is noise of the projections' time
DASHES = ("-", "--", ":", "-.")


class Report:
    """Times and memory by subject and length."""

    def __init__(self, results: Mapping[Point, Measured], lengths: Sequence[int]) -> None:
        self._results = {point: seen for point, seen in results.items() if seen.rounds}
        self.lengths = lengths
        self.subjects = list(dict.fromkeys(subject for subject, _ in results))
        self._projections, *self._sdpa = BASELINES

    def layer(self, subject: Subject, length: int) -> float | None:
        """Milliseconds of a layer."""
        seen = self._results.get((subject, length))
        return None if seen is None else 1000 * seen.seconds

    def mixing(self, subject: Subject, length: int) -> float | None:
        """Milliseconds of a layer less those of four projections."""
        whole, part = self.layer(subject, length), self.layer(self._projections, length)
        return None if whole is None or part is None else whole - part

    def memory(self, subject: Subject, length: int) -> float | None:
        """MiB."""
        seen = self._results.get((subject, length))
        return None if seen is None else seen.peak / MIB

    def sdpa(self, subject: Subject) -> Subject:
        """Full attention in the same slot."""
        return self._sdpa[subject.causal]

    def slower(self, subject: Subject, length: int) -> float | None:
        """Times SDPA's time of mixing."""
        mine, other = self.mixing(subject, length), self.mixing(self.sdpa(subject), length)
        if mine is None or other is None or other <= 0:
            return None
        return max(mine / other, LEAST)

    def larger(self, subject: Subject, length: int) -> float | None:
        """Times SDPA's memory."""
        return ratio(self.memory(subject, length), self.memory(self.sdpa(subject), length))

    def crossover(self, subject: Subject) -> str:
        """The N from which the subject beats SDPA, interpolated between logarithms."""
        found = [(N, self.slower(subject, N)) for N in self.lengths]
        known = [(N, r) for N, r in found if r is not None]
        if not known or subject.mechanism == "full":
            return "–"
        if known[-1][1] >= 1:
            return f"> {known[-1][0]}"
        for (low, above), (high, below) in reversed(list(pairwise(known))):
            if above >= 1:
                part = math.log(above) / math.log(above / below)
                return f"{low * (high / low) ** part:.0f}"
        return f"< {known[0][0]}"

    def exponent(self, of: Callable[[Subject, int], float | None], subject: Subject) -> str:
        """The slope of logarithms over N, by least squares."""
        found = [(N, of(subject, N)) for N in self.lengths]
        known = [(math.log(N), math.log(y)) for N, y in found if y and N >= FITTED_FROM]
        if len(known) < 2:
            return "–"
        x_mean, y_mean = (sum(values) / len(known) for values in zip(*known, strict=True))
        across = sum((x - x_mean) ** 2 for x, _ in known)
        return f"{sum((x - x_mean) * (y - y_mean) for x, y in known) / across:.2f}"

    def rows(self) -> list[Subject]:
        """SDPA, then ours."""
        return [*self._sdpa, *(s for s in self.subjects if s.implementation == OURS)]

    def references(self) -> list[tuple[Subject, Subject]]:
        """Ours with each of the references measured beside it."""
        mine = {(s.mechanism, s.causal): s for s in self.subjects if s.implementation == OURS}
        return [
            (mine[s.mechanism, s.causal], s)
            for s in self.subjects
            if s.implementation != OURS and (s.mechanism, s.causal) in mine
        ]

    def projections(self) -> str:
        """A line on the time that was subtracted."""
        found = [(N, self.layer(self._projections, N)) for N in self.lengths]
        return ", ".join(f"{ms:.1f} ms at {N}" for N, ms in found if ms is not None)


def tables(results: Mapping[Point, Measured], lengths: Sequence[int]) -> str:
    """Times, memory, and references as Markdown."""
    report = Report(results, lengths)
    parts = [
        f"Mixing of heads, forward + backward: CPU ms (times SDPA of the same slot).\n"
        f"Subtracted for the projections: {report.projections()}.",
        _times(report),
        "Peak memory of a layer, projections included: MiB (times SDPA); the exponent is fitted "
        f"from N = {FITTED_FROM} on.",
        _memory(report),
    ]
    if report.references():
        parts += [
            "Ours ÷ reference, mixing of heads: time (memory of a layer); below 1, ours is better.",
            _references(report),
        ]
    return "\n\n".join(parts)


def _times(report: Report) -> str:
    return _table(
        ("mechanism", "slot", *report.lengths, "exponent", "beats SDPA from N"),
        (
            (
                *_names(s),
                *(_cell(report.mixing(s, N), report.slower(s, N)) for N in report.lengths),
                report.exponent(report.mixing, s),
                report.crossover(s),
            )
            for s in report.rows()
        ),
    )


def _memory(report: Report) -> str:
    return _table(
        ("mechanism", "slot", *report.lengths, "exponent"),
        (
            (
                *_names(s),
                *(_cell(report.memory(s, N), report.larger(s, N)) for N in report.lengths),
                report.exponent(report.memory, s),
            )
            for s in report.rows()
        ),
    )


def _references(report: Report) -> str:
    remarks = {(name, r.name): r.differs for name, found in REFERENCES.items() for r in found}

    def row(mine: Subject, other: Subject) -> Iterable[str]:
        yield from _names(mine)
        yield other.implementation
        for N in report.lengths:
            time = ratio(report.mixing(mine, N), report.mixing(other, N))
            yield _cell(time, ratio(report.memory(mine, N), report.memory(other, N)))
        yield remarks[mine.mechanism, other.implementation]

    header = ("mechanism", "slot", "reference", *report.lengths, "differs in definition")
    return _table(header, (row(*pair) for pair in report.references()))


def ratio(one: float | None, other: float | None) -> float | None:
    """One over other, if both are known and positive."""
    if one is None or other is None or one <= 0 or other <= 0:
        return None
    return one / other


def _names(subject: Subject) -> tuple[str, str]:
    baseline = subject.implementation == SDPA.name
    slot = "causal" if subject.causal else "encoder"
    return (SDPA.name if baseline else subject.mechanism), slot


def _cell(value: float | None, beside: float | None) -> str:
    if value is None:
        return "–"
    return _short(value) if beside is None else f"{_short(value)} ({beside:.2f})"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _table(header: Iterable[object], rows: Iterable[Iterable[str]]) -> str:
    cells = [[str(c) for c in header], *([*row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def draw(results: Mapping[Point, Measured], lengths: Sequence[int], path: Path) -> None:
    """Time and memory over N in both slots, SDPA in ink."""
    report = Report(results, lengths)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 8.4), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, causal in enumerate((False, True)):
            subjects = [s for s in report.rows() if s.causal == causal]
            _panel(panels[0][column], report, subjects, report.mixing)
            _panel(panels[1][column], report, subjects, report.memory)
            panels[0][column].set_title("causal" if causal else "encoder", weight="bold")
            panels[1][column].set_xlabel("N")
        panels[0][0].set_ylabel("mixing of heads, CPU ms, forward + backward")
        panels[1][0].set_ylabel("peak memory of a layer, MiB")
        lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
        figure.legend(
            handles=list(lines.values()), loc="outside right upper", frameon=False, fontsize=9
        )
        figure.savefig(path, format="png", dpi=DOTS_PER_INCH)


def _panel(
    axes: Axes,
    report: Report,
    subjects: Sequence[Subject],
    of: Callable[[Subject, int], float | None],
) -> None:
    names = list(ATTENTION)
    for subject in subjects:
        known = [(N, y) for N in report.lengths if (y := of(subject, N)) is not None and y > 0]
        if subject.mechanism == "full":
            if subject.implementation == OURS:
                continue  # it is SDPA
            style: dict[str, Any] = {"color": INK, "linewidth": 2.4, "label": SDPA.name}
        else:
            place = names.index(subject.mechanism)
            style = {"color": PALETTE[place % len(PALETTE)], "linewidth": 1.5}
            style["linestyle"] = DASHES[place % len(DASHES)]
            style["label"] = ATTENTION[subject.mechanism].title
        axes.plot(*zip(*known, strict=True) if known else ([], []), marker=".", **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(report.lengths, [str(N) for N in report.lengths])
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(color="#ececec", lw=0.8)
    axes.set_axisbelow(True)
