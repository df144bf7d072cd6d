// Draws /status.json every five seconds. Names of models come from strangers: they reach the page as text, never as markup.
"use strict";

const EVERY_MS = 5000;
const GLYPHS = { good: "\u2713", warn: "\u26A0\uFE0E", bad: "\u2715", lost: "?" };
const $ = (id) => document.getElementById(id);

const plain = (decimal) => decimal.replace(/\.0+$|(\.\d*?)0+$/, "$1"); // 50.0 -> 50, 0.20 -> 0.2
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (n) => (n === null ? "\u2013" : whole.format(n));
const percent = (share) => (share === null ? "\u2013" : `${plain((share * 100).toFixed(1))}%`);
const rate = (n) => (n === null ? "\u2013" : n >= 100 ? whole.format(n) : plain(n.toFixed(n >= 10 ? 1 : 2)));

function ms(value) {
  if (value === null) return "\u2013";
  if (value >= 1000) return `${plain((value / 1000).toFixed(value >= 10000 ? 0 : 1))} s`;
  return `${plain(value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2))} ms`;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${n.toFixed(unit === 0 || n >= 100 ? 0 : 1)} ${units[unit]}`;
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

// ---------------------------------------------------------------------------------------------------------------- charts

// `about` is for whoever sees the page for the first time; `least` keeps an axis of whole things from showing halves.
const CHARTS = [
  { id: "chart-models", name: "Loaded models", about: "In memory. It falls when one has to leave for another.", format: rate, least: 2, lines: [{ key: "loaded_models", name: "models", area: true }] },
  { id: "chart-hits", name: "Cache hit ratio", about: "Calls that found their model in memory. The others waited for a load.", format: percent, top: 1, lines: [{ key: "hit_ratio", name: "from memory", area: true }] },
  { id: "chart-requests", name: "Requests per second", about: "Answered, whatever the answer.", format: rate, lines: [{ key: "requests_per_s", name: "requests", area: true }] },
  { id: "chart-latency", name: "Model latency", about: "Reading the body, scoring, writing the answer.", format: ms, lines: [{ key: "model_p50_ms", name: "p50" }, { key: "model_p99_ms", name: "p99" }] },
  { id: "chart-load", name: "Model load time", about: "From the fetched artifact to ready; the first call waits for it.", format: ms, lines: [{ key: "load_p50_ms", name: "p50" }, { key: "load_p99_ms", name: "p99" }] },
  { id: "chart-churn", name: "Evictions and reloads, per 5 s", about: "Models that left for others, and those that came back soon after.", format: rate, least: 2, lines: [{ key: "evictions", name: "evictions" }, { key: "reloads", name: "back within 5 min" }] },
];
const LEFT = 52, RIGHT = 6, TOP = 6, BOTTOM = 18, HEIGHT = 150;
const SHORTEST_S = 60, RECENT_S = 60; // the least a chart spans; how old a figure may be that stands for now

function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The next of 1, 2, 5, 10, ... that is not below.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value * 0.999);
}

function draw(chart, history, nowS) {
  const figure = $(chart.id);
  if (!figure.firstChild) {
    const caption = element("figcaption");
    caption.append(element("b", "", chart.name));
    if (chart.lines.length > 1) {
      chart.lines.forEach((line, i) => caption.append(element("span", i ? "key second" : "key", line.name)));
    }
    chart.read = caption.appendChild(element("span", "read"));
    chart.svg = node("svg", { role: "img" });
    figure.append(caption, chart.svg, element("p", "small", chart.about));
    chart.svg.addEventListener("pointermove", (event) => { chart.pointer = event.offsetX; point(chart); });
    chart.svg.addEventListener("pointerleave", () => { chart.pointer = null; point(chart); });
  }
  const at = history.at_s;
  const width = Math.max(160, chart.svg.clientWidth);
  const from = Math.min(nowS - SHORTEST_S, Math.max(nowS - 3600, at.length ? at[0] : nowS));
  const known = chart.lines.flatMap((line) => history[line.key]).filter((value) => value !== null);
  const top = chart.top || ceiling(Math.max(chart.least || 0, ...known));
  const x = (s) => LEFT + ((s - from) / (nowS - from)) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  chart.drawn = { history, x, y, from, nowS, width };

  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const line = y(top * share);
    parts.push(node("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: line, y2: line }));
    parts.push(node("text", { x: LEFT - 6, y: line + 4, "text-anchor": "end" }, chart.format(top * share)));
  }
  const step = nowS - from > 1800 ? 900 : nowS - from > 600 ? 300 : nowS - from > 120 ? 60 : 30;
  for (let ago = step; ago < nowS - from; ago += step) {
    if (x(nowS - ago) < LEFT + 14) break;
    parts.push(node("text", { x: x(nowS - ago), y: HEIGHT - 3, "text-anchor": "middle" }, ago % 60 ? `\u2212${ago} s` : `\u2212${ago / 60} min`));
  }
  parts.push(node("text", { x: width - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
  chart.lines.forEach((line, i) => {
    for (const run of runs(at, history[line.key])) {
      const path = run.map(([s, value], k) => `${k ? "L" : "M"}${x(s).toFixed(1)} ${y(Math.min(value, top)).toFixed(1)}`).join("");
      if (line.area) {
        parts.push(node("path", { class: "area", d: `${path}L${x(run[run.length - 1][0]).toFixed(1)} ${y(0)}L${x(run[0][0]).toFixed(1)} ${y(0)}Z` }));
      }
      parts.push(node("path", { class: i ? "line second" : "line", d: path }));
      if (run.length === 1) parts.push(node("circle", { class: i ? "dot second" : "dot", cx: x(run[0][0]), cy: y(run[0][1]), r: 2 }));
    }
  });
  chart.cursor = node("g", {});
  chart.svg.replaceChildren(...parts, chart.cursor);
  chart.svg.setAttribute("aria-label", `${chart.name}, last hour. ${chart.lines.map((line) => summary(chart, line, history)).join(" ")}`);
  point(chart);
}

// Stretches without a gap: nothing recorded is no line, not zero.
function runs(at, values) {
  const found = [];
  let run = null;
  values.forEach((value, i) => {
    if (value === null) { run = null; return; }
    if (!run || at[i] - at[i - 1] > 30) { run = []; found.push(run); }
    run.push([at[i], value]);
  });
  return found;
}

function summary(chart, line, history) {
  const known = history[line.key].filter((value) => value !== null);
  if (!known.length) return `${line.name}: nothing recorded.`;
  return `${line.name}: now ${chart.format(known[known.length - 1])}, lowest ${chart.format(Math.min(...known))}, highest ${chart.format(Math.max(...known))}.`;
}

// The figures under the pointer, or the newest ones.
function point(chart) {
  const { history, x, y } = chart.drawn;
  const at = history.at_s;
  chart.cursor.replaceChildren();
  if (!at.length) { chart.read.textContent = "no points yet"; return; }
  let i = at.length - 1;
  const isPointed = chart.pointer !== null && chart.pointer !== undefined;
  if (isPointed) {
    i = at.reduce((best, s, k) => (Math.abs(x(s) - chart.pointer) < Math.abs(x(at[best]) - chart.pointer) ? k : best), 0);
    chart.cursor.append(node("line", { class: "cursor", x1: x(at[i]), x2: x(at[i]), y1: TOP, y2: HEIGHT - BOTTOM }));
    chart.lines.forEach((line, k) => {
      if (history[line.key][i] !== null) chart.cursor.append(node("circle", { class: k ? "dot second" : "dot", cx: x(at[i]), cy: y(history[line.key][i]), r: 3 }));
    });
  }
  // A pause of seconds between calls leaves the newest figure standing; it is drawn as the gap it is.
  const newest = (values) => values.findLast((value, k) => value !== null && at[k] > at[i] - RECENT_S) ?? null;
  const figures = chart.lines.map((line) => chart.format(isPointed ? history[line.key][i] : newest(history[line.key]))).join(" / ");
  chart.read.textContent = isPointed ? `${clock(at[i])}  ${figures}` : figures;
}

// ---------------------------------------------------------------------------------------------------------------- tables

function rows(id, list, cells, columns, empty) {
  const made = list.map((entry) => {
    const row = element("tr");
    for (const [text, className] of cells(entry)) row.append(element("td", className, text));
    return row;
  });
  if (!made.length) {
    const row = element("tr");
    const cell = element("td", "none", empty);
    cell.colSpan = columns;
    row.append(cell);
    made.push(row);
  }
  $(id).replaceChildren(...made);
}

function historyRows(history) {
  const every = Math.max(1, Math.ceil(history.at_s.length / 24));
  const picked = [];
  for (let i = history.at_s.length - 1; i >= 0; i -= every) picked.push(i);
  rows("history-rows", picked, (i) => [
    [clock(history.at_s[i]), ""], [count(history.loaded_models[i]), "n"], [percent(history.hit_ratio[i]), "n"],
    [rate(history.requests_per_s[i]), "n"], [ms(history.model_p50_ms[i]), "n"], [ms(history.model_p99_ms[i]), "n"],
    [ms(history.load_p99_ms[i]), "n"], [count(history.evictions[i]), "n"], [count(history.reloads[i]), "n"],
  ], 9, "No points yet; one is added every five seconds.");
}

// ------------------------------------------------------------------------------------------------------------------ page

function verdict(level, headline, detail) {
  const header = $("verdict");
  if (header.className !== `verdict ${level}`) header.className = `verdict ${level}`;
  for (const [id, text] of [["glyph", GLYPHS[level]], ["headline", headline], ["detail", detail]]) {
    if ($(id).textContent !== text) $(id).textContent = text; // only a change is read aloud
  }
}

function show(status) {
  const now = status.now;
  verdict(status.verdict.level, status.verdict.headline, status.verdict.detail);
  document.title = `${GLYPHS[status.verdict.level]} ${status.verdict.headline} \u2013 ${status.title}`;
  $("title").textContent = status.title;
  $("uptime").textContent = `up ${span(status.at_s - status.started_s)}`;
  $("fresh").textContent = clock(status.at_s);

  $("requests").textContent = `${rate(now.requests_per_s)}/s`;
  $("requests-note").textContent = now.queue_depth ? `last minute; ${count(now.queue_depth)} waiting` : "last minute";
  $("hits").textContent = percent(now.hit_ratio);
  $("hits-note").textContent = `${count(now.loads)} loads in 5 min`;
  $("latency").textContent = ms(now.model_p50_ms);
  $("latency-note").textContent = `p50; p99 ${ms(now.model_p99_ms)}`;
  $("errors").textContent = count(now.errors_4xx + now.errors_5xx);
  $("errors-note").textContent = `${count(now.errors_5xx)} ours (5xx), ${count(now.errors_4xx)} theirs`;

  const share = now.budget_bytes ? now.loaded_bytes / now.budget_bytes : 0;
  $("memory").textContent = `${bytes(now.loaded_bytes)} of ${bytes(now.budget_bytes)}`;
  $("memory-note").textContent = `${count(now.loaded_models)} models; process ${bytes(now.process_bytes)}; ${count(now.evictions)} evictions in 5 min`;
  $("meter-fill").style.width = `${Math.min(100, share * 100)}%`;
  $("meter").className = share > 0.95 ? "meter full" : "meter";
  $("meter").setAttribute("aria-valuenow", Math.round(share * 100));

  $("thrash-panel").hidden = !status.thrashing.length;
  const thrashing = status.thrashing_models === 1 ? "1 model was" : `${count(status.thrashing_models)} models were`;
  $("thrash-note").textContent = `In the last five minutes ${thrashing} loaded again soon after being evicted. More memory for models (--memory) ends it. The worst:`;
  rows("thrash-rows", status.thrashing, (row) => [[row.model, "name"], [count(row.reloads), "n hot"], [span(row.away_s), "n"]], 3, "");
  const busy = status.others && status.others.requests_per_s > 0 ? [...status.busiest, { ...status.others, model: "all others" }] : status.busiest;
  rows("busy-rows", busy, (row) => [
    [row.model, "name"], [rate(row.requests_per_s), "n"], [percent(row.hit_ratio), "n"], [ms(row.mean_ms), "n"],
    [count(row.errors), row.errors ? "n hot" : "n"],
  ], 5, "No requests yet.");
  rows("evicted-rows", status.evicted, (row) => [
    [row.model, "name"], [`${span(status.at_s - row.at_s)} ago`, "n"], [span(row.age_s), "n"], [bytes(row.n_bytes), "n"],
  ], 4, "Nothing has been evicted.");
  $("dropped").hidden = !now.reports_dropped;
  $("dropped").textContent = `${count(now.reports_dropped)} metric reports could not be delivered.`;
  historyRows(status.history);
  for (const chart of CHARTS) draw(chart, status.history, status.at_s);
  $("verdict").parentNode.querySelector("main").classList.remove("old");
}

let last = null;

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(EVERY_MS - 500) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    last = await answer.json();
    show(last);
  } catch (error) {
    const since = last ? `What is below is from ${clock(last.at_s)}.` : "Nothing is known yet.";
    verdict("lost", "No contact", `The server did not answer (${error.message}). ${since}`);
    document.title = `${GLYPHS.lost} No contact`;
    document.querySelector("main").classList.add("old");
  }
}

refresh();
setInterval(refresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
window.addEventListener("resize", () => { if (last) for (const chart of CHARTS) draw(chart, last.history, last.at_s); });
