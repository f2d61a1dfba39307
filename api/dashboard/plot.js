// Words and numbers of the catalogue, and the scatter plot of a front.

export const catalogue = {metrics: {}, attention: []};

const MARGIN = {left: 64, right: 16, top: 12, bottom: 46};
const TICK_ROOM = 46; // between the middles of two labels on the horizontal axis
const SVG = ["circle", "line", "path", "text"];

// A node with text or nodes in it: strings become text, never markup.
export function el(tag, content, attributes = {}) {
  const node = SVG.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...[content].flat().filter((part) => part !== null && part !== undefined));
  return node;
}

// --- words and numbers ---------------------------------------------------------------------------

function scaled(value) {
  for (const [step, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= step) return [value / step, letter];
  return [value, ""];
}

// A measured value: three or four digits, zeros at the end among them.
export function short(name, value) {
  if (value === undefined || value === null) return "–";
  const [number, letter] = scaled(value);
  if (!letter && Number.isInteger(value) && catalogue.metrics[name]?.unit === "count") return String(value);
  return number.toPrecision(letter ? 3 : 4) + letter;
}

// A round value, on an axis.
function tick(value) {
  const [number, letter] = scaled(value);
  return Number(number.toPrecision(3)) + letter;
}

// A metric and its unit, each said once: latency_ms is "latency (ms)".
export function label(name) {
  const unit = catalogue.metrics[name]?.unit;
  const words = name.split("_");
  if (unit && words.length > 1 && words.at(-1) === unit.toLowerCase()) words.pop();
  return words.join(" ") + (!unit || unit === "count" ? "" : ` (${unit})`);
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

function runs(names) {
  const parts = [];
  for (const name of names) {
    const last = parts.at(-1);
    if (last && last.name === name) last.count += 1;
    else parts.push({name, count: 1});
  }
  return parts.map((p) => (p.count > 1 ? `${p.name}×${p.count}` : p.name)).join(" ");
}

export function oneLine(architecture) {
  const halting = (architecture.halting || {}).type || "none", repeats = architecture.repeats || 1;
  const parts = [
    `${architecture.width} wide: ${runs(architecture.layers.map((l) => l.attention.type))}`,
    runs(architecture.layers.map((l) => l.feedforward.type)),
  ];
  if (halting !== "none") parts.push(`${halting} ×${repeats}`);
  else if (repeats > 1) parts.push(`repeated ×${repeats}`);
  return parts.join(" | ");
}

function mainAttention(architecture) {
  const counts = new Map();
  for (const layer of architecture.layers) counts.set(layer.attention.type, (counts.get(layer.attention.type) || 0) + 1);
  return [...counts].reduce((best, next) => (next[1] > best[1] ? next : best))[0];
}

const place = (attention) => Math.max(0, catalogue.attention.indexOf(attention));
const colour = (attention) => `c${place(attention) % 14}`;
const known = (trial, ...names) => names.every((name) => Number.isFinite(trial.metrics[name]));

// --- axes ----------------------------------------------------------------------------------------

function axis(name, values, from, to) {
  const log = catalogue.metrics[name].scale === "log" && values.every((v) => v > 0);
  const turn = log ? Math.log10 : (v) => v;
  let low = Infinity, high = -Infinity;
  for (const value of values.map(turn)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  low -= room;
  high += room;
  return {
    from, to,
    at: (v) => from + ((turn(v) - low) / (high - low)) * (to - from),
    ticks: log ? logTicks(low, high) : linearTicks(low, high),
  };
}

function linearTicks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high) {
  if (high - low < 0.3) return linearTicks(10 ** low, 10 ** high);
  const mantissas = high - low < 1 ? [1, 1.5, 2, 3, 4, 5, 7] : high - low < 2.5 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1)
    for (const m of mantissas) {
      const exponent = power + Math.log10(m);
      if (exponent >= low && exponent <= high) ticks.push(m * 10 ** power);
    }
  return ticks;
}

// --- the plot ------------------------------------------------------------------------------------

// nodes: {plot, legend, tip}; data: {trials, front, objectives, x, y, open(trial id)}.
// Returns how many trials were drawn.
export function drawPlot(nodes, data) {
  const {x, y, front} = data;
  const members = new Map(front.items.map((t) => [t.id, t]));
  const trials = data.trials.filter((t) => known(t, x, y));
  const attention = [...new Set(trials.map((t) => mainAttention(t.architecture)))].sort((a, b) => place(a) - place(b));
  nodes.legend.replaceChildren(...attention.map((name) => el("li", [el("span", null, {class: `swatch ${colour(name)}`}), name])));
  nodes.tip.hidden = true;
  nodes.plot.parentElement.hidden = !trials.length;
  // drawn in pixels, so that words and marks are as large on a narrow screen
  const width = nodes.plot.parentElement.clientWidth, height = Math.round(Math.min(460, Math.max(300, width * 0.5)));
  if (!width) return trials.length;
  nodes.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const across = axis(x, trials.map((t) => t.metrics[x]), MARGIN.left, width - MARGIN.right);
  const up = axis(y, trials.map((t) => t.metrics[y]), height - MARGIN.bottom, MARGIN.top);
  const focused = document.activeElement?.dataset?.trial;
  trials.sort((a, b) => members.has(a.id) - members.has(b.id));
  nodes.plot.replaceChildren(
    ...grid(across, up, x, y),
    ...staircase("baseline", front.homogeneous, x, y, across, up),
    ...staircase("steps", front.items, x, y, across, up),
    ...trials.map((t) => dot(t, across.at(t.metrics[x]), up.at(t.metrics[y]), members.has(t.id), nodes, data)),
    ...kneeMark(members.get(front.knee), x, y, across, up),
  );
  if (focused) nodes.plot.querySelector(`[data-trial="${CSS.escape(focused)}"]`)?.focus();
  return trials.length;
}

function grid(across, up, x, y) {
  const [left, right, top, bottom] = [across.from, across.to, up.to, up.from];
  const apart = [];
  for (const v of across.ticks) if (!apart.length || across.at(v) - across.at(apart.at(-1)) >= TICK_ROOM) apart.push(v);
  return [
    ...apart.flatMap((v) => [
      el("line", null, {class: "grid", x1: across.at(v), x2: across.at(v), y1: top, y2: bottom}),
      el("text", tick(v), {x: across.at(v), y: bottom + 18, "text-anchor": "middle"}),
    ]),
    ...up.ticks.flatMap((v) => [
      el("line", null, {class: "grid", x1: left, x2: right, y1: up.at(v), y2: up.at(v)}),
      el("text", tick(v), {x: left - 8, y: up.at(v) + 4, "text-anchor": "end"}),
    ]),
    el("text", label(x), {class: "title", x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle"}),
    el("text", label(y), {class: "title", transform: `translate(16 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle"}),
  ];
}

// The front of these two objectives alone: where nothing better than the line has been found.
function staircase(kind, members, x, y, across, up) {
  const sign = (name) => (catalogue.metrics[name].direction === "maximize" ? -1 : 1);
  const points = members
    .filter((t) => known(t, x, y))
    .map((t) => [t.metrics[x], t.metrics[y]])
    .sort((a, b) => sign(x) * (a[0] - b[0]) || sign(y) * (a[1] - b[1]));
  let best = Infinity, path = "";
  for (const [px, py] of points) {
    if (sign(y) * py >= best) continue;
    path += path ? `H${across.at(px)}V${up.at(py)}` : `M${across.at(px)} ${up.at(py)}`;
    best = sign(y) * py;
  }
  return path ? [el("path", null, {class: kind, d: path})] : [];
}

function kneeMark(knee, x, y, across, up) {
  if (!knee || !known(knee, x, y)) return [];
  const [cx, cy] = [across.at(knee.metrics[x]), up.at(knee.metrics[y])];
  // the word goes where nothing better than the knee can be
  const less = (name) => catalogue.metrics[name].direction !== "maximize";
  const left = less(x) ? cx > across.from + 56 : cx > across.to - 56;
  return [
    el("circle", null, {class: "ring", cx, cy, r: 11}),
    el("text", "knee", {class: "title", x: left ? cx - 12 : cx + 12, y: cy + (less(y) ? 18 : -10), "text-anchor": left ? "end" : "start"}),
  ];
}

function dot(trial, cx, cy, member, nodes, data) {
  const values = data.objectives.map((name) => `${name} ${short(name, trial.metrics[name])}`).join(", ");
  const node = el("circle", null, {
    class: `dot ${colour(mainAttention(trial.architecture))} ${member ? "member" : "dominated"}`,
    cx, cy, r: member ? 6.5 : 4.5, "data-trial": trial.id, role: "button",
    "aria-label": `Trial ${trial.number}: ${oneLine(trial.architecture)}; ${values}`,
  });
  // the dominated are many: the keyboard walks along the front only
  if (member) node.setAttribute("tabindex", "0");
  for (const type of ["pointerenter", "focus"]) node.addEventListener(type, () => showTip(nodes.tip, node, trial, data.objectives));
  for (const type of ["pointerleave", "blur"]) node.addEventListener(type, () => (nodes.tip.hidden = true));
  node.addEventListener("click", () => data.open(trial.id));
  node.addEventListener("keydown", (event) => {
    if (!["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    data.open(trial.id);
  });
  return node;
}

function showTip(tip, node, trial, objectives) {
  const box = tip.parentElement.getBoundingClientRect(), at = node.getBoundingClientRect();
  tip.textContent = [
    `Trial ${trial.number}`,
    oneLine(trial.architecture),
    ...objectives.map((name) => `${label(name)}: ${short(name, trial.metrics[name])}`),
  ].join("\n");
  tip.hidden = false;
  const right = at.right - box.left + 8;
  const fits = right + tip.offsetWidth <= box.width;
  tip.style.left = `${Math.max(0, fits ? right : at.left - box.left - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(0, at.top - box.top - 10)}px`;
}
