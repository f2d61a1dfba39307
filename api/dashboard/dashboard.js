// The dashboard: jobs, one job live, its front. Everything from outside is inserted as text.
"use strict";

const MAX_POINTS = 3000;
const FULL = ["completed", "reused"];
const FINAL = ["succeeded", "failed", "cancelled"];
const ACTIONS = {pause: ["queued", "running"], resume: ["paused"], cancel: ["queued", "running", "paused"]};
const PLOT = {width: 760, height: 430, left: 74, right: 20, top: 16, bottom: 46};

const at = (id) => document.getElementById(id);
const catalogue = {metrics: {}, attention: []};
let view = null; // the open job: {id, job, front, trials, source, dirty, axes}

function el(tag, content, attributes = {}) {
  const svg = ["svg", "g", "circle", "line", "path", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...[content].flat().filter((part) => part !== null && part !== undefined));
  return node;
}

const numberCell = (text) => el("td", text, {class: "number"});
const fill = (node, ...children) => node.replaceChildren(...children.flat());

// --- the service ---------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.status === 204) return null;
  const document = await response.json().catch(() => ({detail: response.statusText}));
  if (response.ok) return document;
  const faults = (document.errors || []).map((e) => `${e.pointer}: ${e.message}`);
  throw new Error([document.title || response.status, ...(faults.length ? faults : [document.detail])].join("\n"));
}

const post = (path, body) =>
  ask(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: body && JSON.stringify(body)});

function complain(error) {
  at("problem").textContent = error ? error.message : "";
  at("problem").hidden = !error;
}

async function attempt(action) {
  try {
    complain(null);
    return await action();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

async function watchService() {
  try {
    const response = await fetch("/readyz");
    const ready = await response.json();
    at("service").textContent = response.ok ? "" : ready.checks.filter((c) => !c.ok).map((c) => c.detail).join("; ");
  } catch {
    at("service").textContent = "the service does not answer";
  }
  setTimeout(watchService, 10000);
}

// --- words and numbers ---------------------------------------------------------------------------

function short(name, value) {
  if (value === undefined || value === null) return "–";
  const unit = (catalogue.metrics[name] || {}).unit || "";
  const size = Math.abs(value);
  const large = size >= 1000 || unit === "count" || unit.startsWith("FLOPs");
  for (const [step, letter] of large ? [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] : [])
    if (size >= step) return Number((value / step).toPrecision(3)) + letter;
  return String(Number(value.toPrecision(size >= 1 ? 4 : 3)));
}

const label = (name) => {
  const metric = catalogue.metrics[name];
  return metric ? `${name.replaceAll("_", " ")} (${metric.unit})` : name;
};

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
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

function oneLine(architecture) {
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

const colour = (attention) => `c${Math.max(0, catalogue.attention.indexOf(attention)) % 14}`;

// --- the list of jobs ----------------------------------------------------------------------------

const rows = new Map();
let listing = null;

async function showJobs() {
  const page = await attempt(() => ask("/v1/jobs?limit=50"));
  if (view !== null || at("jobs").hidden) return;
  if (page) {
    at("no-jobs").hidden = page.items.length > 0;
    at("jobs-table").hidden = page.items.length === 0;
    addRows(page.items, true);
    if (at("more-jobs").dataset.next === undefined) olderFrom(page.next);
  }
  clearTimeout(listing);
  listing = setTimeout(() => (document.hidden ? null : showJobs()), 3000);
}

function addRows(jobs, newest) {
  const body = at("jobs-table").tBodies[0];
  let place = newest ? body.firstChild : null;
  for (const job of jobs) {
    let row = rows.get(job.id);
    if (!row) {
      row = el("tr", [el("th", el("a", job.name, {href: `#/jobs/${job.id}`}), {scope: "row"}), ...Array.from({length: 6}, () => el("td"))]);
      for (const cell of [3, 4, 5]) row.cells[cell].className = "wide";
      row.cells[2].append(el("progress", null, {max: 1, "aria-label": `Progress of ${job.name}`}));
      rows.set(job.id, row);
      body.insertBefore(row, place);
    }
    place = row.nextSibling;
    fill(row.cells[1], el("span", job.state, {class: `state ${job.state}`}));
    row.cells[2].firstChild.value = job.progress.fraction;
    row.cells[3].textContent = job.request.task.name;
    row.cells[4].textContent = job.space;
    row.cells[5].textContent = job.request.strategy.name;
    row.cells[6].textContent = new Date(job.created_at).toLocaleString();
  }
}

function olderFrom(next) {
  at("more-jobs").dataset.next = next || "";
  at("more-jobs").hidden = !next;
}

async function showOlder() {
  const cursor = encodeURIComponent(at("more-jobs").dataset.next);
  const page = await attempt(() => ask(`/v1/jobs?limit=50&cursor=${cursor}`));
  if (!page) return;
  addRows(page.items, false);
  olderFrom(page.next);
}

// --- one job -------------------------------------------------------------------------------------

async function openJob(id) {
  const mine = (view = {id, job: null, front: null, trials: new Map(), source: null, timer: null, wanted: new Set()});
  at("job").hidden = true;
  const job = await attempt(() => ask(`/v1/jobs/${encodeURIComponent(id)}`));
  if (!job || view !== mine) return;
  mine.job = job;
  chooseAxes(job.request.objectives);
  fill(at("exports"));
  await attempt(() => loadTrials(mine));
  if (view !== mine) return;
  await refresh(mine);
  at("job").hidden = false;
  if (!FINAL.includes(job.state)) follow(mine);
}

function closeJob() {
  if (!view) return;
  if (view.source) view.source.close();
  clearTimeout(view.timer);
  view = null;
}

async function loadTrials(mine) {
  for (const state of FULL) {
    let cursor = "";
    do {
      const page = await ask(`/v1/jobs/${mine.id}/trials?state=${state}&limit=200${cursor}`);
      for (const trial of page.items) mine.trials.set(trial.id, trial);
      cursor = page.next ? `&cursor=${encodeURIComponent(page.next)}` : null;
    } while (cursor && mine.trials.size < MAX_POINTS && view === mine);
  }
}

function follow(mine) {
  mine.source = new EventSource(`/v1/jobs/${mine.id}/events`);
  const changed = (message) => {
    const event = JSON.parse(message.data);
    if (event.type === "trial" && FULL.includes(event.data.state) && !mine.trials.has(event.data.trial))
      mine.wanted.add(event.data.trial);
    if (event.type === "job" && FINAL.includes(event.data.state)) mine.source.close();
    if (!mine.timer) mine.timer = setTimeout(() => catchUp(mine), 700);
  };
  for (const type of ["job", "trial", "export"]) mine.source.addEventListener(type, changed);
}

async function catchUp(mine) {
  mine.timer = null;
  const wanted = [...mine.wanted];
  mine.wanted.clear();
  await attempt(async () => {
    for (const id of wanted) if (mine.trials.size < MAX_POINTS) mine.trials.set(id, await ask(`/v1/trials/${id}`));
  });
  if (view === mine) await refresh(mine);
}

async function refresh(mine) {
  const answer = await attempt(() => Promise.all([ask(`/v1/jobs/${mine.id}`), ask(`/v1/jobs/${mine.id}/pareto`)]));
  if (!answer || view !== mine) return;
  [mine.job, mine.front] = answer;
  for (const trial of mine.front.items) mine.trials.set(trial.id, trial);
  drawJob(mine.job);
  drawPlot();
  drawFront();
}

function drawJob(job) {
  const progress = job.progress, bill = job.bill, task = job.request.task;
  document.title = `${job.name} · Paretoformer`;
  at("job-title").textContent = job.name;
  at("job-state").textContent = job.state;
  at("job-state").className = `state ${job.state}`;
  at("job-about").textContent = [
    job.id, task.name, task.dataset, job.space, job.request.strategy.name, progress.phase,
  ].filter(Boolean).join(" · ");
  at("job-error").textContent = job.error || "";
  at("job-error").hidden = !job.error;
  at("job-progress").value = progress.fraction;
  for (const button of document.querySelectorAll("[data-action]"))
    button.disabled = !ACTIONS[button.dataset.action].includes(job.state);
  const facts = {
    Elapsed: span(progress.elapsed_seconds),
    "Time left": span(progress.eta_seconds),
    "Full trainings spent": progress.spent.toFixed(1),
    "Core time": span(bill.core_seconds),
    Energy: `${(bill.energy_kwh * 1000).toPrecision(3)} Wh (${bill.energy_source})`,
    "CO₂": `${(bill.co2_kg * 1000).toPrecision(3)} g`,
    Cost: `${bill.money.toFixed(2)} ${bill.currency}`,
    Rungs: progress.rung_steps.map((steps, i) => `${steps}: ${progress.rung_counts[i]}`).join(", ") || "–",
  };
  fill(at("job-facts"), Object.entries(facts).map(([name, value]) => [el("dt", name), el("dd", value)]).flat());
  const row = (name, value) => el("tr", [el("th", name, {scope: "row"}), numberCell(value)]);
  fill(at("states").tBodies[0], Object.entries(progress.trials).map(([state, count]) => row(state, String(count))));
  fill(at("best").tBodies[0], Object.entries(progress.best).map(([name, value]) => row(label(name), short(name, value))));
}

async function act(action) {
  const mine = view;
  if (action === "cancel" && !confirm(`Cancel ${mine.job.name} for good?`)) return;
  if (await attempt(() => post(`/v1/jobs/${mine.id}/${action}`))) await refresh(mine);
}

async function exportTrial(trial) {
  const mine = view;
  const line = el("span", `Exporting ${trial} … `);
  at("exports").append(line);
  const done = await attempt(async () => {
    let state = await post(`/v1/jobs/${mine.id}/exports`, {trial, format: "config"});
    while (["queued", "running"].includes(state.state)) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      state = await ask(`/v1/exports/${state.id}`);
    }
    return state;
  });
  if (!done) line.remove();
  else if (done.state === "failed") line.textContent = `The export of ${trial} failed: ${done.error} `;
  else fill(line, "Ready: ", el("a", done.filename, {href: `/v1/exports/${done.id}/download`, download: done.filename}), " ");
}

// --- the plot ------------------------------------------------------------------------------------

function chooseAxes(objectives) {
  const known = objectives.filter((name) => catalogue.metrics[name]);
  const cost = known.find((name) => catalogue.metrics[name].known !== "at each rung");
  for (const [id, chosen] of [["x-metric", cost || known[0]], ["y-metric", known.find((n) => n !== cost) || known[0]]]) {
    fill(at(id), known.map((name) => el("option", label(name), {value: name})));
    at(id).value = chosen;
  }
}

function axis(name, values, from, to) {
  const log = catalogue.metrics[name].scale === "log" && values.every((v) => v > 0);
  const turn = log ? Math.log10 : (v) => v;
  let low = Math.min(...values.map(turn)), high = Math.max(...values.map(turn));
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  low -= room;
  high += room;
  return {place: (v) => from + ((turn(v) - low) / (high - low)) * (to - from), ticks: log ? logTicks(low, high) : linearTicks(low, high)};
}

function linearTicks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const mantissas = high - low < 0.5 ? [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9] : high - low < 2 ? [1, 2, 5] : [1];
  for (let power = Math.floor(low); power <= high; power += 1)
    for (const m of mantissas) {
      const exponent = power + Math.log10(m);
      if (exponent >= low && exponent <= high) ticks.push(m * 10 ** power);
    }
  return ticks;
}

function drawPlot() {
  const [x, y] = [at("x-metric").value, at("y-metric").value];
  const trials = [...view.trials.values()].filter((t) => Number.isFinite(t.metrics[x]) && Number.isFinite(t.metrics[y]));
  const members = new Set(view.front.items.map((t) => t.id));
  const attention = [...new Set(trials.map((t) => mainAttention(t.architecture)))];
  attention.sort((a, b) => catalogue.attention.indexOf(a) - catalogue.attention.indexOf(b));
  fill(at("legend"), attention.map((name) => el("li", [el("span", null, {class: `swatch ${colour(name)}`}), name])));
  at("plot-note").textContent = trials.length
    ? `${trials.length} trials at full fidelity, ${members.size} on the front of ${view.front.objectives.join(", ")}; the others are faint.` +
      (view.trials.size >= MAX_POINTS ? ` Only the first ${MAX_POINTS} are drawn.` : "")
    : "No trial has reached full fidelity yet.";
  if (!trials.length) return fill(at("plot"));

  const {width, height, left, right, top, bottom} = PLOT;
  const across = axis(x, trials.map((t) => t.metrics[x]), left, width - right);
  const up = axis(y, trials.map((t) => t.metrics[y]), height - bottom, top);
  const focused = document.activeElement && document.activeElement.dataset.trial;
  const dots = trials
    .sort((a, b) => members.has(a.id) - members.has(b.id))
    .map((trial) => dot(trial, across.place(trial.metrics[x]), up.place(trial.metrics[y]), members.has(trial.id)));
  const knee = view.front.items.find((t) => t.id === view.front.knee);
  fill(
    at("plot"),
    across.ticks.map((v) => [
      el("line", null, {class: "grid", x1: across.place(v), x2: across.place(v), y1: top, y2: height - bottom}),
      el("text", short(x, v), {x: across.place(v), y: height - bottom + 18, "text-anchor": "middle"}),
    ]).flat(),
    up.ticks.map((v) => [
      el("line", null, {class: "grid", x1: left, x2: width - right, y1: up.place(v), y2: up.place(v)}),
      el("text", short(y, v), {x: left - 8, y: up.place(v) + 4, "text-anchor": "end"}),
    ]).flat(),
    el("text", label(x), {class: "title", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle"}),
    el("text", label(y), {class: "title", transform: `translate(16 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle"}),
    staircase(view.front.items.filter((t) => trials.includes(view.trials.get(t.id))), x, y, across, up),
    dots,
    knee && Number.isFinite(knee.metrics[x]) && Number.isFinite(knee.metrics[y])
      ? [
          el("circle", null, {class: "ring", cx: across.place(knee.metrics[x]), cy: up.place(knee.metrics[y]), r: 11}),
          el("text", "knee", {class: "title", x: across.place(knee.metrics[x]) + 14, y: up.place(knee.metrics[y]) - 9}),
        ]
      : [],
  );
  if (focused) document.querySelector(`[data-trial="${CSS.escape(focused)}"]`)?.focus();
}

function dot(trial, cx, cy, member) {
  const node = el("circle", null, {
    class: `dot ${colour(mainAttention(trial.architecture))} ${member ? "member" : "dominated"}`, cx, cy, r: member ? 6.5 : 4.5,
    "data-trial": trial.id, role: "button", "aria-label": `Trial ${trial.number}: ${describe(trial)}`,
  });
  // the dominated are many: the keyboard walks along the front, the table of trials has the rest
  if (member) node.setAttribute("tabindex", "0");
  for (const type of ["pointerenter", "focus"]) node.addEventListener(type, () => showTip(trial, node));
  for (const type of ["pointerleave", "blur"]) node.addEventListener(type, () => (at("tip").hidden = true));
  node.addEventListener("click", () => showDetails(trial.id));
  node.addEventListener("keydown", (event) => {
    if (["Enter", " "].includes(event.key)) {
      event.preventDefault();
      showDetails(trial.id);
    }
  });
  return node;
}

function staircase(members, x, y, across, up) {
  const sign = (name) => (catalogue.metrics[name].direction === "maximize" ? -1 : 1);
  const points = members.map((t) => [t.metrics[x], t.metrics[y]]).sort((a, b) => sign(x) * (a[0] - b[0]) || sign(y) * (a[1] - b[1]));
  let best = Infinity, path = "";
  for (const [px, py] of points) {
    if (sign(y) * py >= best) continue;
    path += path ? `H${across.place(px)}V${up.place(py)}` : `M${across.place(px)} ${up.place(py)}`;
    best = sign(y) * py;
  }
  return path ? [el("path", null, {class: "steps", d: path})] : [];
}

const describe = (trial) =>
  `${oneLine(trial.architecture)}; ${view.job.request.objectives.map((n) => `${n} ${short(n, trial.metrics[n])}`).join(", ")}`;

function showTip(trial, node) {
  const tip = at("tip"), box = tip.parentElement.getBoundingClientRect(), place = node.getBoundingClientRect();
  tip.textContent = `Trial ${trial.number}\n${oneLine(trial.architecture)}\n` +
    view.job.request.objectives.map((n) => `${label(n)}: ${short(n, trial.metrics[n])}`).join("\n");
  tip.hidden = false;
  const left = place.right - box.left + 8;
  tip.style.left = `${Math.max(0, left + tip.offsetWidth > box.width ? place.left - box.left - tip.offsetWidth - 8 : left)}px`;
  tip.style.top = `${Math.max(0, place.top - box.top - 10)}px`;
}

// --- the front and one trial ---------------------------------------------------------------------

function drawFront() {
  const front = view.front;
  fill(at("front").tHead, el("tr", [
    el("th", "Trial", {scope: "col"}), ...front.objectives.map((n) => el("th", label(n), {scope: "col", class: "number"})),
    el("th", "Architecture", {scope: "col"}),
  ]));
  fill(at("front").tBodies[0], front.items.map((trial) => {
    const open = el("button", String(trial.number), {type: "button", "aria-label": `Details of trial ${trial.number}`});
    open.addEventListener("click", () => showDetails(trial.id));
    const cells = front.objectives.map((name) => {
      const checked = trial.verified && trial.verified[name];
      const text = short(name, trial.metrics[name]);
      return numberCell(checked ? `${text} · verified ${short(name, checked.mean)} [${short(name, checked.low)}, ${short(name, checked.high)}]` : text);
    });
    const knee = trial.id === front.knee;
    return el("tr", [el("td", [open, knee ? " knee" : null]), ...cells, el("td", oneLine(trial.architecture))], knee ? {class: "knee"} : {});
  }));
  at("front-note").textContent = front.items.length ? `Hypervolume ${front.hypervolume.toPrecision(4)}` : "The front is empty so far.";
  at("export-knee").disabled = !front.knee;
}

async function showDetails(id) {
  const trial = await attempt(() => ask(`/v1/trials/${encodeURIComponent(id)}`));
  if (!trial) return;
  at("details-title").textContent = `Trial ${trial.number}`;
  at("details-about").textContent = [oneLine(trial.architecture), trial.state, `from ${trial.origin}`, trial.id, trial.error].filter(Boolean).join(" · ");
  fill(at("details-metrics").tBodies[0], Object.entries(trial.metrics).map(([name, value]) =>
    el("tr", [el("th", label(name), {scope: "row"}), numberCell(short(name, value))])));
  const measured = [...new Set(trial.curve.flatMap((point) => Object.keys(point.metrics)))];
  at("details-curve").hidden = !trial.curve.length;
  fill(at("details-curve").tHead, el("tr", ["Steps", ...measured.map(label)].map((name) => el("th", name, {scope: "col", class: "number"}))));
  fill(at("details-curve").tBodies[0], trial.curve.map((point) =>
    el("tr", [numberCell(String(point.steps)), ...measured.map((name) => numberCell(short(name, point.metrics[name])))])));
  at("details-json").textContent = JSON.stringify(trial.architecture, null, 2);
  at("details-export").disabled = !FULL.includes(trial.state);
  at("details-export").onclick = () => {
    at("details").close();
    exportTrial(trial.id);
  };
  at("details").showModal();
}

// --- start ---------------------------------------------------------------------------------------

function route() {
  closeJob();
  complain(null);
  const match = location.hash.match(/^#\/jobs\/([\w.-]+)$/);
  at("jobs").hidden = Boolean(match);
  at("job").hidden = true;
  document.title = "Paretoformer";
  if (match) openJob(match[1]);
  else showJobs();
}

async function start() {
  watchService();
  await attempt(async () => {
    const [metrics, attention] = await Promise.all([ask("/v1/metrics"), ask("/v1/mechanisms?kind=attention")]);
    for (const metric of metrics.items) catalogue.metrics[metric.name] = metric;
    catalogue.attention = attention.items.map((m) => m.name);
  });
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
  for (const id of ["x-metric", "y-metric"]) at(id).addEventListener("change", drawPlot);
  at("export-knee").addEventListener("click", () => exportTrial("knee"));
  at("more-jobs").addEventListener("click", showOlder);
  at("details-close").addEventListener("click", () => at("details").close());
  at("details-copy").addEventListener("click", () => navigator.clipboard.writeText(at("details-json").textContent));
  document.addEventListener("visibilitychange", () => !document.hidden && !view && showJobs());
  window.addEventListener("hashchange", route);
  route();
}

start();
