// What the page knows: a JSON header and columns of float64, unpacked from the element #data.
"use strict";

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const raw = await new Response(stream).arrayBuffer();
  const length = Number(new DataView(raw).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 8, length)));
  const column = {};
  for (const [name, [at, size]] of Object.entries(header.at)) {
    column[name] = new Float64Array(raw, 8 + length + 8 * at, size);
  }
  return [header, column];
}

const [page, probe] = await unpack(document.getElementById("data").textContent);
const N = page.backbones.label.length;
const variable = Object.fromEntries(page.variables.map((v) => [v.name, v]));
for (const v of page.variables) v.levels = v.levels.map(words);
for (const row of page.report?.contrasts ?? []) Object.assign(row, { from: words(row.from), to: words(row.to) });
const hasLayers = Boolean(page.curves.start);
const datasets = [...new Set(page.experiments.dataset)].sort();
const numberOf = new Map(page.backbones.backbone.map((name, b) => [name, b]));
const experimentsOf = group(page.experiments.backbone);
const curvesOf = hasLayers ? group(page.curves.backbone) : [];

function group(codes) {
  const result = Array.from({ length: N }, () => []);
  codes.forEach((b, i) => result[b].push(i));
  return result;
}

// A backbone's value of a variable: a number, or a word with a word for null.
function valueOf(b, name) {
  const value = page.backbones[name][b];
  const v = variable[name];
  if (value === null || value === undefined) return v && v.kind === "word" ? v.if_null ?? "unknown" : null;
  return !v || v.kind === "number" ? value : words(value);
}

// Numbers in words as the table of levels has them (100.0 and 100 are one level).
function words(value) {
  if (typeof value !== "number") return String(value);
  return Math.abs(value) >= 10000 ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : String(Number(value.toPrecision(4)));
}

function show(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (digits !== undefined) return value.toFixed(digits).replace("-", "−");
  return (Number.isInteger(value) && Math.abs(value) < 10000 ? String(value) : words(value)).replace("-", "−");
}

const percent = (share) => (Number.isFinite(share) ? (100 * share).toFixed(1) + " %" : "–");
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// What is reported, and what chooses the peak layer, by each rule: as analysis/tables/metrics.py has it.
const REPORTED = { heldout: "top1", last: "top1_last", paper: "top1_best" };
const CHOOSES = { heldout: "choice", last: "choice", paper: "top1_best" };

// Loss that decides between equal peaks; the paper's rule knows none.
const lossOf = (i, rule) => (rule !== "paper" && Number.isFinite(probe.choice_loss?.[i]) ? probe.choice_loss[i] : Infinity);

// Peak layer of a curve: of equal ones that of least loss, then the middle one (of two the deeper); by the paper's rule
// the first. A tunnel if accuracy falls after it. A curve that lacks a layer or an accuracy has no peak: nor has the table.
function peakOf(c, rule) {
  const start = page.curves.start[c], end = start + page.curves.n[c];
  const choice = probe[CHOOSES[rule]], value = probe[REPORTED[rule]];
  const loss = (i) => lossOf(i, rule);
  let best = []; // equal ones
  for (let i = start; choice && i < end; i++) {
    if (!Number.isFinite(choice[i]) || !Number.isFinite(value[i]) || probe.layer[i] !== i - start + 1) return { at: -1, last: end - 1, tunnel: false };
    const higher = best.length ? choice[i] - choice[best[0]] || (loss(i) === loss(best[0]) ? 0 : loss(best[0]) - loss(i)) : 1;
    if (higher > 0) best = [i];
    else if (higher === 0) best.push(i);
  }
  const peak = best.length ? best[rule === "paper" ? 0 : best.length >> 1] : -1;
  return { at: peak, last: end - 1, tunnel: peak >= 0 && peak < end - 1 && value[peak] > value[end - 1] };
}

// Wilson's 95 % interval of a share of n test images.
function wilson(p, n) {
  if (!Number.isFinite(p) || !n) return null;
  const z = 1.959964, d = 1 + (z * z) / n, middle = (p + (z * z) / (2 * n)) / d;
  const half = (z / d) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [middle - half, middle + half];
}

// Matched pairs of backbones: two values of a variable, equal in the columns given. A pair is [low, high].
function matched(name, equal, steps) {
  const cells = new Map();
  equal = equal.filter((column) => column in page.backbones); // what is the same for all needs no look
  for (let b = 0; b < N; b++) {
    const key = JSON.stringify(equal.map((c) => page.backbones[c][b]));
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(b);
  }
  const found = [];
  for (const members of cells.values()) {
    for (const [from, to] of steps) {
      const side = (level) => members.filter((b) => words(valueOf(b, name) ?? "") === level);
      for (const a of side(from)) for (const b of side(to)) found.push([a, b]);
    }
  }
  return found;
}
