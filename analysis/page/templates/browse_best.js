// The tabs Best layer and Against.
const BEST = ["best layer", "its last layer", "best last layer of all"];

// For each dataset: held-out images choose backbone and layer, test images say how good they are. Of equal ones that of
// least loss, then the first in the table; bestSql asks the same.
function bestRows() {
  const rule = state.rule, value = probe[REPORTED[rule]], found = new Map(), ok = new Set(passing());
  page.curves.dataset.forEach((dataset, c) => {
    if (page.curves.is_id[c] || (page.curves.epoch?.[c] ?? null) !== null || !ok.has(page.curves.backbone[c])) return;
    const peak = peakOf(c, rule), choice = probe[CHOOSES[rule]];
    if (peak.at < 0) return;
    const row = found.get(dataset) ?? { best: null, last: null };
    const beats = (i, other) => !other || choice[i] > choice[other.at] || (choice[i] === choice[other.at] && lossOf(i, rule) < lossOf(other.at, rule));
    if (beats(peak.at, row.best)) row.best = { c, ...peak };
    if (beats(peak.last, row.last)) row.last = { c, at: peak.last };
    found.set(dataset, row);
  });
  return [...found.entries()].sort(([a], [b]) => a.localeCompare(b)).map(([dataset, { best, last }]) => {
    const c = best.c, b = page.curves.backbone[c], other = last ? page.curves.backbone[last.c] : null;
    return {
      dataset, b, backbone: ownName(b), label: unique(b), layer: probe.layer[best.at], layer_name: page.curves.stacks[page.curves.stack[c]][best.at - page.curves.start[c]],
      of: page.curves.n[c], accuracy: value[best.at], its_last: value[best.last], lost: 100 * (value[best.at] - value[best.last]),
      other, last_label: other === null ? null : unique(other), best_last: last ? value[last.at] : null, lost_to_all: last ? 100 * (value[best.at] - value[last.at]) : null,
    };
  });
}

function bestTab(view) {
  if (!hasLayers) return view.append(el("p", { class: "note" }, noLayers()));
  const chart = el("div", { class: "chart" }), place = el("div", { class: "scroll" }), rows = bestRows();
  if (!rows.length) return view.append(el("p", { class: "empty" }, "No OOD curve passes the filters."));
  const heads = [
    { title: "", key: "open", word: true, orderable: false }, { title: "dataset", key: "dataset", word: true }, { title: "best backbone", key: "label", word: true }, { title: "layer", key: "layer" }, { title: "of", key: "of" }, { title: "name", key: "layer_name", word: true },
    { title: "accuracy", key: "accuracy", digits: 3 }, { title: "its last layer", key: "its_last", digits: 3 }, { title: "lost, points", key: "lost", digits: 1 },
    { title: "best last layer of all", key: "best_last", digits: 3 }, { title: "lost to it, points", key: "lost_to_all", digits: 1 }, { title: "of backbone", key: "last_label", word: true },
  ];
  view.append(
    el("p", { class: "lead" }, state.rule === "paper" ? "For each dataset the backbone and layer with the highest test accuracy (optimistic: the test set chooses, too)." : "For each dataset the backbone and layer that held-out images choose, and how good they are on test images."),
    bar("best", { rows: () => rows.map(({ b, other, ...row }) => row), chart, sql: () => sqlText(bestSql(), page.sources, "the better row of each dataset counts") }), place, chart,
  );
  grid("best", place, heads, rows.map((row) => ({ ...row, open: "" })), { createdRow: (tr, row) => tr.firstElementChild.replaceChildren(el("button", { type: "button", "aria-label": `Show the curves of ${row.label} on ${row.dataset}`, onclick: () => update({ tab: "layers", sel: [page.backbones.backbone[row.b]], data: [row.dataset] }) }, "curves")) });
  const dots = rows.flatMap((row) => [[row.accuracy, row.label, row.b, row.layer], [row.its_last, row.label, row.b, row.of], [row.best_last, row.last_label, row.other, "last"]].map(([value, backbone, b, layer], k) => ({ label: row.dataset, series: BEST[k], value: value === null ? null : 100 * value, backbone, layer, id: page.backbones.backbone[b] }))).filter((row) => row.value !== null);
  const room = labelRoom(rows.map((row) => row.dataset), 420);
  return draw(chart, "best", dots, { width: chartWidth(chart, room + 40), label_limit: room, title: "test accuracy (%)", rows: rows.map((row) => row.dataset), order: BEST, series: " ", legend_columns: 0 }, (datum) => datum.id && update({ tab: "layers", sel: [datum.id], data: [datum.label] }));
}

function bestSql() {
  const also = Object.keys(state.filters).length || state.q ? [`c.backbone IN (SELECT backbone FROM backbones${where()})`] : [];
  const conditions = ["NOT c.is_id", "c.incomplete IS NULL", "coalesce(p.chosen, true)", "c.epoch IS NULL", ...also].join("\n  AND ");
  const ties = state.rule === "paper" ? "" : "p.choice_loss NULLS LAST, ";
  return `SELECT c.dataset, c.backbone, c.peak_layer AS layer, c.peak_accuracy AS accuracy\nFROM curves c JOIN probes p ON p.curve_key = c.curve_key AND p.layer = c.peak_layer\nWHERE ${conditions}\nQUALIFY row_number() OVER (PARTITION BY c.dataset ORDER BY p.choice DESC, ${ties}c.curve_key) = 1\nORDER BY c.dataset`;
}

// Variables of which each of both knows something: of a published table seeds, say, are not known.
function knownToBoth() {
  const told = (name, sweep) => page.backbones.sweep.some((own, b) => own === sweep && page.backbones[name][b] !== null);
  const free = ["sweep", "parameters", "id_images", "backbone_test_top1", "overparametrization"];
  return page.variables.map((v) => v.name).filter((name) => !free.includes(name) && page.sources.every((s) => told(name, s.name)));
}

// Two sweeps: the experiments that both have, and their difference.
function againstRows() {
  const [first, second] = page.sources.map((s) => s.name), metric = state.metric, values = page.values[state.rule][metric], found = [];
  const equal = variable.sweep ? knownToBoth() : [];
  for (const [a, b] of matched("sweep", equal, [[first, second]])) {
    if (!passes(a) && !passes(b)) continue;
    const other = new Map(experimentsOf[b].map((e) => [page.experiments.dataset[e], e]));
    for (const e of experimentsOf[a]) {
      const f = other.get(page.experiments.dataset[e]);
      if (f === undefined || values[e] === null || values[f] === null) continue;
      found.push({ a, b, label: page.backbones.label[a].slice(first.length + 2), dataset: page.experiments.dataset[e], x: values[e], y: values[f], difference: values[f] - values[e] });
    }
  }
  return found;
}

// Why two sweeps cannot be compared: no dataset is in both, or what has to agree does not.
function apart() {
  const [first, second] = page.sources.map((s) => new Set(page.experiments.backbone.flatMap((b, e) => (page.backbones.sweep[b] === s.name ? [page.experiments.dataset[e]] : []))));
  const shared = [...first].filter((name) => second.has(name)), listed = (names) => [...names].sort().join(", ");
  if (!shared.length) return `No OOD dataset is in both: ${page.sources[0].name} has ${listed(first)}; ${page.sources[1].name} has ${listed(second)}.`;
  return `Both have ${listed(shared)}, but no two backbones that pass the filters agree in all that both know: ${knownToBoth().map(columnLabel).join(", ")}.`;
}

function againstTab(view) {
  const [first, second] = page.sources.map((s) => s.name), rows = againstRows(), label = columnLabel(state.metric);
  const chart = el("div", { class: "chart" }), place = el("div", { class: "scroll" });
  if (!rows.length) return view.append(el("p", { class: "empty" }, `The two have no experiment in common. ${apart()}`));
  view.append(
    el("p", { class: "lead" }, `${label} of the ${rows.length} experiments that both have: ${second} minus ${first} is ${show(mean(rows.map((row) => row.difference)), 2)} on average.`),
    bar("against", { rows: () => rows.map(({ a, b, x, y, ...row }) => ({ backbone: ownName(a), other_backbone: ownName(b), ...row, [first]: x, [second]: y })), chart, sql: () => againstSql(knownToBoth()) }), chart, place,
  );
  const heads = [{ title: "", key: "open", word: true, orderable: false }, { title: "backbone", key: "label", word: true }, { title: "dataset", key: "dataset", word: true }, { title: first, key: "x", digits: 3 }, { title: second, key: "y", digits: 3 }, { title: "difference", key: "difference", digits: 3 }];
  grid("against", place, heads, rows.map((row) => ({ ...row, open: "" })), { createdRow: (tr, row) => tr.firstElementChild.replaceChildren(el("button", { type: "button", disabled: !hasLayers, "aria-label": `Show both curves of ${row.label} on ${row.dataset}`, onclick: () => update({ tab: "layers", sel: [row.a, row.b].map((b) => page.backbones.backbone[b]), data: [row.dataset] }) }, "curves")) });
  const all = rows.flatMap((row) => [row.x, row.y]), order = datasets.filter((name) => rows.some((row) => row.dataset === name));
  return draw(chart, "against", rows.map((row) => ({ ...row, series: row.dataset, id: page.backbones.backbone[row.a], other: page.backbones.backbone[row.b] })), {
    x: `${label}: ${first}`, y: `${label}: ${second}`, height: Math.min(420, chartWidth(chart, 120)), order, series: "dataset", legend_columns: 4, diagonal: [Math.min(...all), Math.max(...all)].map((v) => ({ v })),
  }, (datum) => datum.id && update({ sel: [datum.id, datum.other], tab: "layers" }));
}
