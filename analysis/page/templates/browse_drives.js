// The tab What drives it: the report's estimates, their SHAP values, and the pairs behind a contrast.
const contrastKey = (row) => [row.target, row.variable, row.from, row.to, ...row.together].join("|");

function drivesTab(view) {
  const report = page.report;
  if (!report) return view.append(el("p", { class: "note" }, `There is no report beside this table. Write one and make this page again: python analysis/shap_report.py ${page.sources[0].place ? `--results ${shell(page.sources[0].place)}` : "--table … --mapping … --out DIR, and --report DIR for this page"}`));
  const targets = Object.entries(report.targets), target = state.target in report.targets ? state.target : targets[0]?.[0];
  if (!target) return view.append(el("p", { class: "note" }, "The report attributes no outcome."));
  const places = Object.fromEntries(["estimates", "pairs", "swarm", "dependence", "interactions"].map((name) => [name, el("div", { class: "chart" })]));
  const found = report.targets[target], shap = report.shap[target], has = shap && shap.backbone.length > 0;
  const names = has ? Object.keys(shap.values) : [], unit = found.unit || found.label;
  const dependence = names.includes(state.dependence) ? state.dependence : names[0];
  const partner = names.includes(state.partner) ? state.partner : names.find((name) => name !== dependence);
  view.append(
    el("div", { class: "controls" }, setter("target", "outcome", targets.map(([name, entry]) => [name, entry.label]), target)),
    el("p", { class: "note" }, `These are the report's numbers${report.accuracy ? " (" + report.accuracy + ")" : ""}: they follow neither the filters nor the accuracy rule.`),
    findingsPart(report), el("h2", {}, "Estimates"), ...(found.problem ? [el("p", { class: "note" }, found.problem)] : []),
    bar("estimates", { rows: () => estimateRows(target).map(({ sure: _, contrast, ...row }) => row), chart: places.estimates, sql: estimatesSql(target, found) }), places.estimates,
    el("p", { class: "note" }, "Faint: what the report does not assert; of what it gives no verdict on, intervals that include zero. A click on a dot of matched pairs shows its pairs."),
    el("h2", {}, "Matched pairs"), bar("contrasts", { rows: () => contrastRows(target), sql: contrastsSql(target) }), contrastTable(target), el("div", { id: "pairs" }, ...pairsPart(target, places.pairs)),
  );
  const drawn = [drawEstimates(places.estimates, target, found)];
  if (chosenContrast(target)) drawn.push(drawPairs(places.pairs, target));
  if (has) {
    view.append(
      el("h2", {}, "SHAP values"), bar("shap", { rows: () => swarmRows(target).map(({ jitter: _, id, backbone, label, ...row }) => ({ backbone: ownName(numberOf.get(id)), name: backbone, variable: label, ...row })), chart: places.swarm, sql: swarmSql(target, found) }), places.swarm,
      el("h2", {}, "Dependence"), el("div", { class: "controls" }, setter("dependence", "variable", names.map((n) => [n, columnLabel(n)]), dependence), setter("partner", "coloured by", names.map((n) => [n, columnLabel(n)]), partner)),
      bar("dependence", { rows: () => dependenceTable(target, dependence, partner), chart: places.dependence, sql: dependenceSql(target, found, dependence, partner) }), places.dependence,
    );
    drawn.push(drawSwarm(places.swarm, target, unit), drawDependence(places.dependence, target, dependence, partner, unit));
  }
  if (found.interactions.matrix.length) {
    view.append(el("h2", {}, "Interactions"), el("p", { class: "note" }, "Mean |SHAP interaction value| of each two variables, in the model's unit; main effects on the diagonal."), bar("interactions", { rows: () => interactionRows(found), chart: places.interactions, sql: interactionsSql(target) }), places.interactions);
    drawn.push(draw(places.interactions, "interactions", interactionRows(found), { rows: found.interactions.labels, title: "mean |interaction|" }));
  }
  return Promise.all(drawn);
}

// As choice, for an entry whose value may stand for "the first".
function setter(key, label, options, current) {
  const box = el("select", { "data-state": key, onchange: (e) => update({ [key]: options[e.target.selectedIndex][0] }) });
  for (const [value, text] of options) box.append(el("option", { value, selected: value === current }, text));
  return el("label", { class: "choice" }, el("span", {}, label), box);
}

function findingsPart(report) {
  if (!report.findings.length) return null;
  const items = report.findings.map((found) => el("li", {}, found.text, found.sure ? el("span", { class: "note" }, " " + found.sure) : null));
  return el("details", {}, el("summary", {}, `What the report found (${items.length} sentences)`), el("ol", {}, ...items));
}

function contrastsOf(target) {
  return page.report.contrasts.filter((row) => row.target === target && row.value !== null);
}

function contrastRows(target) {
  return contrastsOf(target).map(({ variable: name, label, from, to, together, n_pairs, value, low, high, p_holm, verdict }) => ({ variable: name, label, from, to, moving_too: together.join(", "), pairs: n_pairs, value, low, high, p_holm, verdict }));
}

const chosenContrast = (target) => contrastsOf(target).find((row) => contrastKey(row) === state.contrast);
const together = (row) => (row.together_labels.length ? ", with " + row.together_labels.join(", ") : "");
const bounds = (row) => (row.low === null ? "–" : `${show(row.low, 2)} … ${show(row.high, 2)}`);

// One contrast per variable: of its lowest and highest value if there are such pairs, else the one with most pairs.
function mainContrasts(target) {
  const of = new Map();
  for (const row of contrastsOf(target)) {
    const levels = sortedLevels(row.variable), whole = row.from === levels[0] && row.to === levels.at(-1);
    const rank = (whole ? 1e9 : 0) + row.n_pairs;
    if (rank > (of.get(row.variable)?.rank ?? -1)) of.set(row.variable, { rank, row });
  }
  return [...of.values()].map(({ row }) => row);
}

// All estimates of an outcome, a row for each; those of matched pairs know their contrast. A report that has none among
// its effects gives them by its contrasts.
function estimateRows(target) {
  const contrasts = new Map(mainContrasts(target).map((row) => [row.variable, row])), found = page.report.targets[target].estimates;
  const pairs = found.some((row) => row.kind === "matched pairs") ? [] : [...contrasts.values()].map((row) => ({ ...row, kind: "matched pairs", scale: `${row.from} → ${row.to}`, together: row.together_labels, basis: `${row.n_pairs} pairs of backbones` }));
  return [...pairs, ...found].map((row) => {
    const contrast = row.kind === "matched pairs" ? contrasts.get(row.variable) : null;
    return {
      variable: row.variable, label: row.label, series: row.kind, scale: row.scale + (row.together.length ? `, with ${row.together.join(", ")}` : ""), value: row.value, low: row.low, high: row.high,
      verdict: row.verdict, basis: row.basis, contrast: contrast ? contrastKey(contrast) : null, interval: bounds(row), sure: row.sure,
    };
  });
}

function drawEstimates(place, target, found) {
  const rows = estimateRows(target);
  if (!rows.length) return place.replaceChildren(el("p", { class: "empty" }, "The report has no estimate of this outcome."));
  const size = (label) => Math.max(...rows.filter((row) => row.label === label).map((row) => Math.abs(row.value)));
  const labels = [...new Set(rows.map((row) => row.label))].sort((a, b) => size(b) - size(a));
  const order = page.report.kinds.filter((kind) => rows.some((row) => row.series === kind));
  // an interval that says next to nothing would press all others together: it ends at the picture's edge
  const reach = 2.5 * Math.max(...rows.map((row) => Math.abs(row.value)));
  const drawn = rows.map((row) => ({ ...row, low: Math.max(row.low ?? row.value, -reach), high: Math.min(row.high ?? row.value, reach) }));
  if (rows.some((row) => row.low < -reach || row.high > reach)) place.after(el("p", { class: "note" }, "Intervals that reach beyond the picture end at its edge; hover for their numbers, or take the CSV."));
  const room = labelRoom(labels);
  return draw(place, "estimates", drawn, { width: chartWidth(place, room + 40), label_limit: room, x: `effect on ${found.label}${found.unit ? ` (${found.unit})` : ""}`, rows: labels, order, series: "estimate", legend_columns: 0 },
    (datum) => datum.contrast && openContrast(datum.contrast));
}

async function openContrast(key) {
  await update({ contrast: key });
  const place = document.getElementById("pairs");
  place?.scrollIntoView({ block: "start" });
}

function contrastTable(target) {
  const place = el("div", { class: "scroll", id: "contrasts" }), rows = contrastsOf(target);
  const heads = [
    { title: "", key: "open", orderable: false, word: true }, { title: "variable", key: "named", word: true }, { title: "from → to", key: "scale", word: true }, { title: "moving too", key: "moving", word: true },
    { title: "pairs", key: "n_pairs" }, { title: "difference", key: "value", digits: 2 }, { title: "95 % interval", key: "interval", word: true }, { title: "p, Holm", key: "p_holm", digits: 3, least: 0.001 }, { title: "verdict", key: "verdict", word: true },
  ];
  const lines = rows.map((row) => ({ ...row, open: "", named: row.label, key: contrastKey(row), scale: `${row.from} → ${row.to}`, moving: row.together_labels.join(", ") || "nothing", interval: bounds(row) }));
  queueMicrotask(() => grid("contrasts", place, heads, lines, { pageLength: 10, createdRow: (tr, row) => {
    tr.firstElementChild.replaceChildren(el("button", { type: "button", "data-contrast": row.key, "aria-label": `Show the pairs of ${row.label} ${row.scale}`, onclick: () => openContrast(row.key) }, "pairs"));
    tr.classList.toggle("chosen", row.key === state.contrast);
  } }));
  return place;
}

// Columns that are equal in the pairs of a contrast: the report's, but for those that alone tell the variable's value.
const equalIn = (row) => row.equal.filter((column) => page.kept[row.variable].includes(column));

// The accuracy rule that the report goes by; its pairs are shown by it, too.
const reportRule = () => Object.keys(page.rules).find((rule) => page.rules[rule] === page.report.accuracy) ?? state.rule;

// Pairs of backbones behind a contrast, with the mean of the outcome over the datasets that both have.
function contrastPairs(row) {
  if (!(row.variable in variable)) return [];
  const values = page.values[reportRule()][row.target];
  const own = (b) => !page.report.sweep || page.backbones.sweep[b] === page.report.sweep; // the report is of one of the two
  return matched(row.variable, equalIn(row), [[row.from, row.to]]).filter((pair) => pair.every(own)).map(([a, b], k) => {
    const at = (side) => new Map(experimentsOf[side].map((e) => [page.experiments.dataset[e], values[e]]));
    const first = at(a), second = at(b), both = [...first.keys()].filter((d) => second.has(d) && first.get(d) !== null && second.get(d) !== null);
    const [low, high] = [first, second].map((side) => mean(both.map((d) => side.get(d))));
    return { pair: k + 1, a, b, datasets: both.length, from: low, to: high, difference: high - low };
  }).filter((pair) => pair.datasets);
}

function pairsPart(target, chart) {
  const row = chosenContrast(target);
  if (!row) return [el("p", { class: "note" }, "Choose “pairs” of a contrast to see the backbones behind it.")];
  const found = contrastPairs(row);
  if (!found.length) return [el("p", { class: "note" }, `The ${row.n_pairs} pairs of ${row.label} ${row.from} → ${row.to} cannot be told from the columns of this page.`)];
  const place = el("div", { class: "scroll" });
  const heads = [
    { title: "", key: "open", orderable: false, word: true }, { title: `${row.label} ${row.from}`, key: "first", word: true }, { title: `${row.label} ${row.to}`, key: "second", word: true }, { title: "datasets", key: "datasets" },
    { title: `at ${row.from}`, key: "from", digits: 2 }, { title: `at ${row.to}`, key: "to", digits: 2 }, { title: "difference", key: "difference", digits: 2 },
  ];
  const lines = found.map((pair) => ({ ...pair, open: "", first: page.backbones.label[pair.a], second: page.backbones.label[pair.b] }));
  queueMicrotask(() => grid("pairs", place, heads, lines, { pageLength: 10, createdRow: (tr, pair) => tr.firstElementChild.replaceChildren(
    el("button", { type: "button", "data-pair": pair.pair, "aria-label": `Show the curves of pair ${pair.pair}`, disabled: !hasLayers, onclick: () => update({ tab: "layers", sel: [pair.a, pair.b].map((b) => page.backbones.backbone[b]) }) }, "curves")) }));
  const differs = found.length !== row.n_pairs ? ` The report counts ${row.n_pairs}: there, repeats and rows of other rules may be averaged.` : "";
  return [
    el("h3", {}, `${row.label} ${row.from} → ${row.to}${together(row)}: ${found.length} pairs`),
    el("p", { class: "note" }, `Equal in ${equalIn(row).map(columnLabel).join(", ") || "nothing else"}.${differs}`),
    bar("pairs", { rows: () => found.map(({ a, b, ...pair }) => ({ ...pair, first: page.backbones.label[a], second: page.backbones.label[b], first_backbone: ownName(a), second_backbone: ownName(b) })), chart, sql: () => pairsSql(row, found) }),
    place, chart,
  ];
}

function drawPairs(place, target) {
  const row = chosenContrast(target);
  if (!contrastPairs(row).length) return null;
  const label = page.report.targets[target].label;
  const rows = contrastPairs(row).flatMap((pair) => [["a", "from"], ["b", "to"]].map(([who, side]) => ({ pair: pair.pair, id: page.backbones.backbone[pair[who]], backbone: page.backbones.label[pair[who]], side: row[side], y: pair[side], difference: show(pair.difference, 2) })));
  return draw(place, "pairs", rows, { x: row.label, y: label, order: [row.from, row.to] }, (datum) => datum.id && select([datum.id], true));
}

// SHAP values ----------------------------------------------------------------------------------------------------------
function shapRows(target) {
  const { backbone, dataset } = page.report.shap[target];
  return backbone.map((name, i) => ({ i, b: numberOf.get(name), dataset: dataset[i] })).filter((row) => row.b !== undefined);
}

function codeOf(b, name) {
  const levels = sortedLevels(name), at = levels.indexOf(words(valueOf(b, name) ?? "unknown"));
  return at < 0 || levels.length < 2 ? 0.5 : at / (levels.length - 1);
}

function swarmRows(target) {
  const { values } = page.report.shap[target];
  return Object.keys(values).flatMap((name) => shapRows(target).map((row) => ({
    id: page.backbones.backbone[row.b], backbone: page.backbones.label[row.b], dataset: row.dataset, label: columnLabel(name), level: words(valueOf(row.b, name) ?? "unknown"),
    value: values[name][row.i], code: codeOf(row.b, name), jitter: jitter(row.i),
  })));
}

function drawSwarm(place, target, unit) {
  const { values } = page.report.shap[target], size = (name) => mean(values[name].map(Math.abs));
  const labels = Object.keys(values).sort((a, b) => size(b) - size(a)).map(columnLabel);
  const room = labelRoom(labels);
  return draw(place, "beeswarm", swarmRows(target), { width: chartWidth(place, room + 40), label_limit: room, x: `SHAP value (${unit})`, rows: labels }, (datum) => datum.id && select([datum.id], true));
}

function dependenceRows(target, name, partner) {
  const { values } = page.report.shap[target];
  return shapRows(target).map((row) => ({ id: page.backbones.backbone[row.b], backbone: page.backbones.label[row.b], dataset: row.dataset, x: words(valueOf(row.b, name) ?? "unknown"), y: values[name][row.i], series: words(valueOf(row.b, partner ?? name) ?? "unknown"), jitter: jitter(row.i) }));
}

// The same with the variables' own values, all digits.
function dependenceTable(target, name, partner) {
  return dependenceRows(target, name, partner).map(({ id, backbone, dataset, y }) => {
    const b = numberOf.get(id);
    return { backbone: ownName(b), label: backbone, dataset, x: page.backbones[name]?.[b] ?? null, y, series: page.backbones[partner ?? name]?.[b] ?? null };
  });
}

function drawDependence(place, target, name, partner, unit) {
  const order = sortedLevels(partner ?? name), rows = dependenceRows(target, name, partner), levels = sortedLevels(name);
  return draw(place, "dependence", rows, { width: chartWidth(place, 120), x: columnLabel(name), y: `SHAP value (${unit})`, x_order: levels, angle: levels.some((text) => text.length > 8) ? -35 : 0, order, series: columnLabel(partner ?? name), legend_columns: 4 }, (datum) => datum.id && select([datum.id], true));
}

function interactionRows(found) {
  const { labels, matrix } = found.interactions;
  return matrix.flatMap((line, i) => line.map((value, j) => ({ label: labels[i], other: labels[j], value })));
}
