// Draws /_platform/facts.json once a second. Everything is put in as text, never as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const by = (id) => document.getElementById(id);
const when = (s) => new Date(s * 1000).toISOString().slice(0, 19).replace("T", " ");
const clock = (s) => new Date(s * 1000).toISOString().slice(5, 16).replace("T", " ");
const hours = (h) => h.toFixed(2);
const usd = (value) => (value === null ? "no price known" : value.toFixed(2));

function cell(row, text, kind = "") {
  const made = row.insertCell();
  made.textContent = text ?? "";
  made.className = kind;
}

// rows: lists of [text, class]; `inner` marks a row that belongs to the one above it.
function fill(id, rows) {
  const body = document.createElement("tbody");
  body.id = id;
  for (const { cells, inner } of rows) {
    const row = body.insertRow();
    row.className = inner ? "inner" : "";
    for (const [text, kind] of cells) cell(row, text, kind);
  }
  if (!rows.length) {
    const columns = by(id).closest("table").querySelectorAll("th").length;
    const row = body.insertRow();
    cell(row, "none", "none");
    row.cells[0].colSpan = columns;
  }
  by(id).replaceWith(body);
}

function node(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function draw(chart, from, to) {
  const [width, height, left, bottom] = [1000, 160, 28, 18];
  const most = Math.max(1, ...chart.flatMap((line) => line.steps.map((step) => step[1])));
  const x = (at) => left + ((at - from) / Math.max(1, to - from)) * (width - left - 4);
  const y = (n) => 6 + (1 - n / most) * (height - bottom - 6);
  const words = chart.map((line) => `${line.name}: ${line.steps.at(-1)[1]} now`).join("; ") || "no instances yet";
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" }))
    svg.setAttribute(key, value);
  svg.setAttribute("aria-label", `Instances over time. ${words}`);
  for (const n of new Set([0, Math.ceil(most / 2), most])) {
    node(svg, "line", { class: "grid", x1: left, x2: width, y1: y(n), y2: y(n) });
    node(svg, "text", { x: 2, y: y(n) + 4 }, String(n));
  }
  node(svg, "text", { x: left, y: height - 4 }, clock(from));
  node(svg, "text", { x: width - 4, y: height - 4, "text-anchor": "end" }, clock(to));
  by("legend").replaceChildren();
  chart.forEach((line, i) => {
    let path = `M${x(line.steps[0][0])} ${y(0)}`;
    for (const [at, n] of line.steps) path += `H${x(at).toFixed(1)}V${y(n).toFixed(1)}`;
    node(svg, "path", { class: `line${i % 4}`, d: path, "vector-effect": "non-scaling-stroke" });
    const key = document.createElement("span");
    key.className = `key line${i % 4}`;
    key.textContent = line.name;
    by("legend").append(key);
  });
  by("drawing").replaceChildren(svg);
}

function show(facts) {
  by("verdict").className = `verdict ${facts.verdict.level}`;
  by("headline").textContent = facts.verdict.headline;
  by("detail").textContent = facts.verdict.detail;
  document.title = `${facts.verdict.headline} – platform`;
  by("time").textContent = `${when(facts.at)} UTC, platform time`;
  by("speed").textContent = facts.speed === 1 ? "" : `${facts.speed} times as fast`;
  by("traps").textContent = facts.traps.length ? `traps: ${facts.traps.join(", ")}` : "";
  by("prices").textContent = `Prices of ${facts.prices_of}, ${facts.region}. ${facts.not_counted}`;
  draw(facts.chart, facts.began, facts.at);
  fill("lines", facts.lines.map((line) => ({ cells: [
    [`${line.kind} ${line.what}`, "long"], [line.instance_type, ""], [line.n_running, "n"], [hours(line.hours), "n"], [usd(line.usd), "n"],
  ] })));
  fill("endpoints", facts.endpoints.flatMap((one) => [
    { cells: [[one.name, "long"], [one.status, ""], ["", ""], ["", ""], [one.reason, "long"]] },
    ...one.variants.map((variant) => ({ inner: true, cells: [
      [`${variant.name}, ${variant.instance_type}`, "long"], ["variant", ""], [variant.n, "n"], [variant.desired, "n"], ["", ""],
    ] })),
    ...one.components.map((part) => ({ inner: true, cells: [
      [part.name, "long"], [part.status, ""], [part.n, "n"], [part.desired, "n"], [part.reason, "long"],
    ] })),
  ]));
  fill("activities", facts.activities.map((one) => ({ cells: [
    [when(one.at), ""], [one.what, "long"], [one.description, "long"],
    [one.message && one.status === "Failed" ? `${one.status}: ${one.message}` : one.status, "long"], [one.cause, "long"],
  ] })));
  fill("alarms", facts.alarms.map((one) => ({ cells: [
    [one.state, ""], [one.name, "long"], [when(one.since), ""], [one.reason, "long"],
  ] })));
  fill("jobs", facts.jobs.map((one) => ({ cells: [
    [`${one.kind} ${one.name}`, "long"], [one.status, ""], [one.on, ""], [hours(one.hours), "n"],
  ] })));
  fill("events", facts.events.map((one) => ({ cells: [
    [when(one.at), ""], [one.what, "long"], [one.status, ""], [one.of, "long"],
  ] })));
}

async function refresh() {
  try {
    const answer = await fetch("/_platform/facts.json");
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    by("verdict").className = "verdict lost";
    by("detail").textContent = `The platform does not answer (${error.message}); these are its last figures.`;
    if (by("headline").textContent === "Asking") by("headline").textContent = "No answer";
  }
}

async function go() {
  await refresh();
  setTimeout(go, 1000);
}
go();
