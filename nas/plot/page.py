"""The HTML page around a front's plot: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from nas.summary import one_line, short

if TYPE_CHECKING:
    from nas.schemas import Front, Job, Trial

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto;
       padding: 0 1rem; }}
svg {{ width: 100%; height: auto; }}
svg g[id^="trial-"]:hover {{ filter: brightness(1.2) drop-shadow(0 0 2px #000); cursor: help; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
caption {{ text-align: left; font-weight: 600; padding: .5rem 0; }}
th, td {{ padding: .35rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
tr.knee {{ background: #fff6dd; }}
code {{ font-size: .9em; }}
</style>
</head>
<body>
{svg}
<div class="wide"><table>
<caption>{caption}</caption>
<thead><tr><th>trial</th>{heads}<th>architecture</th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</body>
</html>
"""


def page(svg: str, job: Job, front: Front) -> str:
    """The plot with a tooltip for each member, and below it the members in figures."""
    for trial in front.items:
        svg = _with_tooltip(svg, trial, front.objectives)
    heads = "".join(f'<th class="n">{escape(o)}</th>' for o in front.objectives)
    return PAGE.format(
        title=escape(f"{job.name}: Pareto front"),
        # a document's prologue has no place inside a page
        svg=svg[svg.index("<svg") :],
        caption=escape(f"{len(front.items)} members, hypervolume {front.hypervolume:.4f}"),
        heads=heads,
        rows="\n".join(_row(t, front) for t in front.items),
    )


def mark_id(trial: Trial) -> str:
    """The id of a member's mark in the SVG."""
    return f"trial-{trial.id}"


def _row(trial: Trial, front: Front) -> str:
    knee = trial.id == front.knee
    cells = "".join(f'<td class="n">{_value(o, trial)}</td>' for o in front.objectives)
    name = f"{trial.number}" + (" (knee)" if knee else "")
    return (
        f'<tr{" class=knee" if knee else ""}><td title="{escape(trial.id)}">{name}</td>{cells}'
        f"<td><code>{escape(one_line(trial.architecture))}</code></td></tr>"
    )


def _value(metric: str, trial: Trial) -> str:
    return escape(short(metric, trial.metrics[metric])) if metric in trial.metrics else "–"


def _with_tooltip(svg: str, trial: Trial, objectives: list[str]) -> str:
    values = [f"{o} {short(o, trial.metrics[o])}" for o in objectives if o in trial.metrics]
    text = escape("\n".join([f"trial {trial.number}", *values, one_line(trial.architecture)]))
    opening = f'<g id="{re.escape(mark_id(trial))}">'
    return re.sub(opening, lambda found: f"{found.group()}<title>{text}</title>", svg, count=1)
