// The dashboard: jobs, one job live, its front. Everything from outside is inserted as text.

import {catalogue, drawPlot, el, label, oneLine, short, span} from "./plot.js";

const MAX_POINTS = 3000;
const FULL = ["completed", "reused"];
const FINAL = ["succeeded", "failed", "cancelled"];
const ACTIONS = {pause: ["queued", "running"], resume: ["paused"], cancel: ["queued", "running", "paused"]};
const LIST_SECONDS = 3;
const SERVICE_SECONDS = 10;

const at = (id) => document.getElementById(id);
const fill = (node, ...children) => node.replaceChildren(...children.flat(2));
const numberCell = (text) => el("td", text, {class: "number"});
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

let view = null; // the open job: {id, job, front, trials, source, timer, wanted}

// --- the service ---------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => ({title: response.statusText, detail: "", errors: []}));
  const faults = (problem.errors || []).map((e) => `${e.pointer}: ${e.message}`);
  throw new Error([problem.title, ...(faults.length ? faults : [problem.detail])].join("\n"));
}

function post(path, body) {
  const headers = body ? {"Content-Type": "application/json"} : {};
  return ask(path, {method: "POST", headers, body: body && JSON.stringify(body)});
}

function complain(error) {
  at("problem").textContent = error ? error.message : "";
  at("problem").hidden = !error;
}

async function attempt(action) {
  try {
    const result = await action();
    complain(null);
    return result;
  } catch (error) {
    complain(error);
    return undefined;
  }
}

async function watchService() {
  for (;;) {
    try {
      const response = await fetch("/readyz");
      const {checks = []} = await response.json();
      at("service").textContent = checks.filter((c) => !c.ok).map((c) => c.detail).join("; ");
    } catch {
      at("service").textContent = "The service does not answer.";
    }
    await pause(SERVICE_SECONDS);
  }
}

// --- the list of jobs ----------------------------------------------------------------------------

const rows = new Map();
let listing = null;

async function showJobs() {
  const page = await attempt(() => ask("/v1/jobs?limit=50"));
  if (at("jobs").hidden) return;
  if (page) {
    at("no-jobs").hidden = page.items.length > 0;
    at("jobs-table").hidden = page.items.length === 0;
    addRows(page.items, true);
    if (at("more-jobs").dataset.next === undefined) olderFrom(page.next);
  }
  clearTimeout(listing);
  listing = setTimeout(() => document.hidden || showJobs(), LIST_SECONDS * 1000);
}

function addRows(jobs, newest) {
  const body = at("jobs-table").tBodies[0];
  let next = newest ? body.firstChild : null;
  for (const job of jobs) {
    if (!rows.has(job.id)) {
      rows.set(job.id, jobRow(job));
      body.insertBefore(rows.get(job.id), next);
    }
    const row = rows.get(job.id);
    next = row.nextSibling;
    fill(row.cells[1], el("span", job.state, {class: `state ${job.state}`}));
    row.cells[2].firstChild.value = job.progress.fraction;
  }
}

function jobRow(job) {
  return el("tr", [
    el("th", el("a", job.name, {href: `#/jobs/${job.id}`}), {scope: "row"}),
    el("td"),
    el("td", el("progress", null, {max: 1, "aria-label": `Progress of ${job.name}`})),
    ...[job.request.task.name, job.space, job.request.strategy.name].map((text) => el("td", text, {class: "wide"})),
    el("td", new Date(job.created_at).toLocaleString([], {dateStyle: "medium", timeStyle: "short"}), {class: "wide"}),
  ]);
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
  const mine = {id, job: null, front: null, trials: new Map(), source: null, timer: null, wanted: new Set()};
  view = mine;
  const job = await attempt(() => ask(`/v1/jobs/${encodeURIComponent(id)}`));
  if (!job || view !== mine) return;
  chooseAxes(job.request.objectives);
  fill(at("exports"));
  await attempt(() => loadTrials(mine));
  await refresh(mine);
  if (view !== mine || !mine.job) return;
  at("job").hidden = false;
  if (!FINAL.includes(mine.job.state)) follow(mine);
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
      const page = await ask(`/v1/jobs/${mine.id}/trials?state=${state}&limit=500${cursor}`);
      for (const trial of page.items) mine.trials.set(trial.id, trial);
      cursor = page.next ? `&cursor=${encodeURIComponent(page.next)}` : null;
    } while (cursor && mine.trials.size < MAX_POINTS && view === mine);
  }
}

function follow(mine) {
  mine.source = new EventSource(`/v1/jobs/${mine.id}/events`);
  const changed = (message) => {
    const event = JSON.parse(message.data);
    const known = mine.trials.has(event.data.trial) || mine.trials.size >= MAX_POINTS;
    if (event.type === "trial" && FULL.includes(event.data.state) && !known) mine.wanted.add(event.data.trial);
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
    for (const id of wanted) mine.trials.set(id, await ask(`/v1/trials/${id}`));
  });
  await refresh(mine);
}

async function refresh(mine) {
  const answer = await attempt(() => Promise.all([ask(`/v1/jobs/${mine.id}`), ask(`/v1/jobs/${mine.id}/pareto`)]));
  if (!answer || view !== mine) return;
  [mine.job, mine.front] = answer;
  for (const trial of mine.front.items) mine.trials.set(trial.id, trial);
  drawJob(mine.job);
  redraw();
  drawFront(mine.front);
}

function drawJob(job) {
  const {progress, bill, request} = job;
  const ended = FINAL.includes(job.state);
  document.title = `${job.name} · Paretoformer`;
  at("job-title").textContent = job.name;
  at("job-state").textContent = job.state;
  at("job-state").className = `state ${job.state}`;
  const about = [job.id, request.task.name, request.task.dataset, job.space, request.strategy.name, job.state === "running" && progress.phase];
  at("job-about").textContent = about.filter(Boolean).join(" · ");
  at("job-error").textContent = job.error || "";
  at("job-error").hidden = !job.error;
  at("job-progress").value = progress.fraction;
  for (const button of document.querySelectorAll("[data-action]"))
    button.disabled = !ACTIONS[button.dataset.action].includes(job.state);
  const facts = {
    Elapsed: span(progress.elapsed_seconds),
    "Time left": ended ? null : span(progress.eta_seconds),
    "Full trainings spent": progress.spent.toFixed(1),
    "Trials past each rung": progress.rung_steps.map((steps, i) => `${steps} steps: ${progress.rung_counts[i]}`).join(", "),
    "Core time": span(bill.core_seconds),
    Energy: `${Number((bill.energy_kwh * 1000).toPrecision(3))} Wh (${bill.energy_source})`,
    "CO₂": `${Number((bill.co2_kg * 1000).toPrecision(3))} g`,
    Cost: bill.money ? `${bill.money.toFixed(2)} ${bill.currency}` : null,
  };
  const told = Object.entries(facts).filter(([, value]) => value !== null);
  fill(at("job-facts"), told.map(([name, value]) => [el("dt", name), el("dd", value)]));
  const row = (name, value) => el("tr", [el("th", name, {scope: "row"}), numberCell(value)]);
  const counts = Object.entries(progress.trials).filter(([, count]) => count);
  fill(at("states").tBodies[0], counts.map(([state, count]) => row(state, String(count))));
  at("states").hidden = !counts.length;
  fill(at("best").tBodies[0], Object.entries(progress.best).map(([name, value]) => row(label(name), short(name, value))));
  at("best").hidden = Object.keys(progress.best).length === 0;
}

async function act(action) {
  const mine = view;
  if (action === "cancel" && !confirm(`Cancel ${mine.job.name} for good?`)) return;
  if (await attempt(() => post(`/v1/jobs/${mine.id}/${action}`))) await refresh(mine);
}

async function exportTrial(trial, name) {
  const line = el("span", `Exporting ${name} … `);
  at("exports").append(line);
  const done = await attempt(async () => {
    let found = await post(`/v1/jobs/${view.id}/exports`, {trial, format: "config"});
    while (["queued", "running"].includes(found.state) && line.isConnected) {
      await pause(1);
      found = await ask(`/v1/exports/${found.id}`);
    }
    return found;
  });
  if (!done) line.remove();
  else if (done.state === "failed") line.textContent = `The export of ${name} failed: ${done.error} `;
  else fill(line, `Export of ${name}: `, el("a", done.filename, {href: `/v1/exports/${done.id}/download`, download: done.filename}), " ");
}

// --- the front and one trial ---------------------------------------------------------------------

function chooseAxes(objectives) {
  const cost = objectives.find((name) => catalogue.metrics[name].known !== "at each rung") || objectives.at(-1);
  const quality = objectives.find((name) => name !== cost) || objectives[0];
  for (const [id, chosen] of [["x-metric", cost], ["y-metric", quality]]) {
    fill(at(id), objectives.map((name) => el("option", label(name), {value: name})));
    at(id).value = chosen;
  }
}

function redraw() {
  const {front, trials, job} = view;
  const drawn = drawPlot(
    {plot: at("plot"), legend: at("legend"), tip: at("tip")},
    {trials: [...trials.values()], front, objectives: job.request.objectives, x: at("x-metric").value, y: at("y-metric").value, open: showDetails},
  );
  const some = trials.size >= MAX_POINTS ? ` Only ${MAX_POINTS} are drawn.` : "";
  at("plot-note").textContent = drawn
    ? `${drawn} trials at full fidelity, ${front.items.length} of them on the front of ${front.objectives.join(", ")}; the others are faint. ` +
      `Dashed: the front of these two objectives; dotted: of the same block in every layer.${some}`
    : FINAL.includes(job.state) ? "No trial reached full fidelity." : "No trial has reached full fidelity yet.";
}

function drawFront(front) {
  const column = (name) => el("th", label(name), {scope: "col", class: "number"});
  fill(at("front").tHead, el("tr", [
    el("th", "Trial", {scope: "col"}), ...front.objectives.map(column), el("th", "Architecture", {scope: "col"}),
  ]));
  const focused = document.activeElement?.dataset?.row;
  fill(at("front").tBodies[0], front.items.map((trial) => frontRow(trial, front)));
  if (focused) document.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
  at("front").hidden = !front.items.length;
  at("front-note").textContent = front.items.length ? `Hypervolume ${front.hypervolume.toPrecision(4)}` : "The front is empty.";
  at("export-knee").disabled = !front.knee;
}

function frontRow(trial, front) {
  const open = el("button", String(trial.number), {type: "button", "data-row": trial.id, "aria-label": `Details of trial ${trial.number}`});
  open.addEventListener("click", () => showDetails(trial.id));
  const cells = front.objectives.map((name) => {
    const again = trial.verified?.[name];
    const spread = again ? el("small", `verified ${short(name, again.mean)}${again.low == null ? "" : ` [${short(name, again.low)}, ${short(name, again.high)}]`}`) : null;
    return numberCell([short(name, trial.metrics[name]), spread]);
  });
  const knee = trial.id === front.knee;
  return el("tr", [el("td", [open, knee ? el("span", "knee", {class: "tag"}) : null]), ...cells, el("td", oneLine(trial.architecture))], knee ? {class: "knee"} : {});
}

async function showDetails(id) {
  const trial = await attempt(() => ask(`/v1/trials/${encodeURIComponent(id)}`));
  if (!trial) return;
  at("details-title").textContent = `Trial ${trial.number}`;
  const about = [oneLine(trial.architecture), trial.state, `from ${trial.origin}`, trial.id, trial.error];
  at("details-about").textContent = about.filter(Boolean).join(" · ");
  fill(at("details-metrics").tBodies[0], Object.entries(trial.metrics).map(([name, value]) =>
    el("tr", [el("th", label(name), {scope: "row"}), numberCell(short(name, value))])));
  const measured = [...new Set(trial.curve.flatMap((point) => Object.keys(point.metrics)))];
  at("details-curve").hidden = !trial.curve.length;
  const heads = ["Steps", ...measured.map(label)];
  fill(at("details-curve").tHead, el("tr", heads.map((name) => el("th", name, {scope: "col", class: "number"}))));
  fill(at("details-curve").tBodies[0], trial.curve.map((point) =>
    el("tr", [numberCell(String(point.steps)), ...measured.map((name) => numberCell(short(name, point.metrics[name])))])));
  at("details-json").textContent = JSON.stringify(trial.architecture, null, 2);
  at("details-export").disabled = !FULL.includes(trial.state);
  at("details-export").onclick = () => {
    at("details").close();
    exportTrial(trial.id, `trial ${trial.number}`);
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
  const answer = await attempt(() => Promise.all([ask("/v1/metrics"), ask("/v1/mechanisms?kind=attention")]));
  if (!answer) return;
  for (const metric of answer[0].items) catalogue.metrics[metric.name] = metric;
  catalogue.attention = answer[1].items.map((mechanism) => mechanism.name);
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
  for (const id of ["x-metric", "y-metric"]) at(id).addEventListener("change", redraw);
  at("export-knee").addEventListener("click", () => exportTrial("knee", "the knee"));
  at("more-jobs").addEventListener("click", showOlder);
  at("details-close").addEventListener("click", () => at("details").close());
  at("details-copy").addEventListener("click", () => navigator.clipboard.writeText(at("details-json").textContent));
  document.addEventListener("visibilitychange", () => document.hidden || view || showJobs());
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width === width) return;
    width = entry.contentRect.width;
    if (view?.job) redraw();
  }).observe(at("job"));
  window.addEventListener("hashchange", route);
  route();
}

start();
