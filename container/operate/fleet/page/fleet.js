"use strict";

// Draws /fleet.json every two seconds. Nothing is judged here; names are set as text, whatever they hold.

const EVERY_MS = 2000;
const LOST_AFTER_MS = 10000;
const GLYPHS = { good: "✓", warn: "!", bad: "✕", lost: "?" };
const NONE = "–";

let answeredAt = 0;

const byId = (id) => document.getElementById(id);
const put = (id, text) => { byId(id).textContent = text; };
const percent = (share) => share === null ? NONE : `${(share * 100).toPrecision(3)} %`;
const whole = (number) => Math.round(number).toLocaleString("en");

function bytes(size) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (size < 1024) return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} GiB`;
}

function row(cells) {
  const line = document.createElement("tr");
  cells.forEach(([text, isNumber]) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    if (isNumber) cell.className = "n";
    line.append(cell);
  });
  return line;
}

function verdict(level, headline, detail) {
  byId("verdict").className = `verdict ${level}`;
  put("glyph", GLYPHS[level]);
  put("headline", headline);
  put("detail", detail);
}

function draw(facts) {
  const all = facts.together;
  verdict(facts.verdict.level, facts.verdict.headline, facts.verdict.detail);
  put("title", facts.title);
  put("requests", all.requests_per_s.toFixed(1));
  put("hits", percent(all.hit_ratio));
  put("hits-note", `${percent(all.hit_ratio_ever)} since the start`);
  put("models", whole(all.n_models));
  put("models-note", `${whole(all.n_copies - all.n_models)} of them more than once`);
  put("evictions", whole(all.evictions));
  put("memory", `${bytes(all.loaded_bytes)} of ${bytes(all.budget_bytes)}`);
  put("memory-note", `${facts.replicas.length} replicas`);
  byId("replica-rows").replaceChildren(...facts.replicas.map((one) => row([
    [one.name, false], [one.why || "ready", false], [one.requests_per_s.toFixed(1), true], [percent(one.hit_ratio), true],
    [whole(one.n_models), true], [`${bytes(one.loaded_bytes)} of ${bytes(one.budget_bytes)}`, true],
    [whole(one.evictions), true], [whole(one.starts), true],
  ])));
  byId("holder-rows").replaceChildren(...facts.models.map((one) => row([
    [one.name, false], [one.replicas.join(", "), false], [whole(one.hits), true], [whole(one.n_bytes / 1024), true],
  ])));
}

async function ask() {
  try {
    const answer = await fetch("/fleet.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    draw(await answer.json());
    answeredAt = Date.now();
    document.querySelector("main").classList.remove("old");
    put("fresh", "now");
  } catch (error) {
    if (Date.now() - answeredAt > LOST_AFTER_MS) {
      verdict("lost", "No answer", `The fleet's page cannot be asked: ${error.message}.`);
      document.querySelector("main").classList.add("old");
    }
  } finally {
    setTimeout(ask, EVERY_MS);
  }
}

ask();
