// The tab Layers: curves of the selected backbones.
const X = { layer: "layer", position: "position (0 first layer, 1 last)" };
if (probe.layer_parameters) X.parameters = "parameters so far";

function placeOf(c, k) {
  const i = page.curves.start[c] + k, n = page.curves.n[c];
  if (state.x === "parameters") return probe.layer_parameters ? probe.layer_parameters[i] : NaN;
  return state.x === "layer" ? probe.layer[i] : n > 1 ? (probe.layer[i] - 1) / (n - 1) : 0;
}

function epochs() {
  if (!page.curves.epoch) return [];
  return [...new Set(page.curves.epoch.filter((epoch) => epoch !== null))].sort((a, b) => a - b);
}

function shownCurves() {
  const wanted = state.data.length ? new Set(state.data) : null, found = [];
  for (const name of state.sel) {
    const when = (c) => page.curves.epoch?.[c] ?? Infinity; // the kept one last
    for (const c of [...curvesOf[numberOf.get(name)]].sort((a, b) => (when(a) < when(b) ? -1 : when(a) > when(b) ? 1 : 0))) {
      const epoch = page.curves.epoch?.[c] ?? null;
      const fits = state.epoch === "all" || (state.epoch === "kept" ? epoch === null : epoch === Number(state.epoch));
      if (fits && (!wanted || wanted.has(page.curves.dataset[c]))) found.push(c);
    }
  }
  return found;
}

// Labels of the selected backbones without what all of them share, if they still differ.
function shortNames() {
  const chosen = state.sel.map((name) => numberOf.get(name)), parts = chosen.map((b) => page.backbones.label[b].split(", "));
  const shared = (part) => parts.every((other) => other.includes(part));
  const short = parts.map((own) => own.filter((part, i) => i === 0 || !shared(part)).join(", "));
  const usable = chosen.length > 1 && new Set(short).size === short.length;
  return new Map(chosen.map((b, k) => [b, usable ? short[k] : unique(b)]));
}

// One row per layer: the numbers of the table, and what the chart needs.
function layerRows(c, called) {
  const { start, n, stack, dataset, is_id, n_test, epoch } = page.curves, b = page.curves.backbone[c];
  const peak = peakOf(c, state.rule), names = page.curves.stacks[stack[c]], value = probe[REPORTED[state.rule]];
  const top = peak.at < 0 ? NaN : value[peak.at], own = dataset[c] + (is_id[c] ? " (ID)" : ""), when = epoch?.[c] ?? null;
  const label = called.get(b) + (state.epoch === "all" ? (when === null ? ", kept" : `, epoch ${when}`) : "");
  return Array.from({ length: n[c] }, (_, k) => {
    const i = start[c] + k, layer = probe.layer[i], interval = wilson(value[i], n_test?.[c]);
    const raw = state.measure === "accuracy" ? 100 * value[i] : probe[state.measure][i];
    return {
      b, i, backbone: label, dataset: own, layer, name: names[k], width: probe.layer_width ? probe.layer_width[i] : null, is_id: is_id[c],
      test: percent(value[i]), heldout: percent(probe.heldout_top1?.[i]), interval: interval ? `${percent(interval[0])} … ${percent(interval[1])}` : "–",
      measure: show(raw, 2), probe_epoch: probe.epoch_chosen ? show(probe.epoch_chosen[i]) : "–", epoch: when ?? "kept", line: c,
      panel: state.panel === "dataset" ? own : label, series: state.panel === "dataset" ? label : own,
      x: placeOf(c, k), parameters: probe.layer_parameters ? show(probe.layer_parameters[i]) : "–",
      y: state.value === "percent" && state.measure === "accuracy" ? (100 * value[i]) / top : raw,
      from: null, to: null, tunnel: false,
    };
  }).filter((row) => Number.isFinite(row.x) && Number.isFinite(row.y));
}

// Where the tunnel of a curve is: from its peak layer to its last.
function tunnelRow(c, rows) {
  const peak = peakOf(c, state.rule);
  if (!peak.tunnel || page.curves.is_id[c] || !rows.length) return [];
  const first = rows.find((row) => row.i === peak.at);
  return first ? [{ ...first, from: first.x, to: rows.at(-1).x, tunnel: true }] : [];
}

function layersTab(view) {
  if (!hasLayers) return view.append(el("p", { class: "note" }, noLayers()));
  const chart = el("div", { class: "chart" });
  const kinds = [["accuracy", "probe accuracy"], ...Object.entries(page.measures)];
  const times = epochs().length ? [choice("epoch", "checkpoint", [["kept", "kept"], ...epochs().map((epoch) => [String(epoch), `after epoch ${epoch}`]), ["all", "all, a line each"]])] : [];
  view.append(
    el("div", { class: "controls" }, adder(), choice("measure", "show", kinds),
      choice("value", "as", [["raw", "measured"], ["percent", "% of the peak layer's"]], state.measure !== "accuracy"), choice("x", "by", Object.entries(X)),
      choice("panel", "one panel per", [["dataset", "dataset"], ["backbone", "backbone"]]), ...times),
    datasetTicks(), bar("layers", { rows: layerTable, chart, sql: () => sqlText(layerSql()) }), chart, el("p", { class: "note", id: "layers-note" }),
  );
  return drawLayers(chart);
}

function noLayers() {
  if (page.n_probes > page.constants.most_probes) {
    return `${page.n_probes.toLocaleString("en")} probes are more than a page can hold (${page.constants.most_probes.toLocaleString("en")}). ` +
      `Ask them in SQL: python -m analysis.sql ${shell(page.sources[0].place)}; or in Python: from analysis import load; load.plot_layers(${JSON.stringify(page.sources[0].place)}, …). The other views are whole.`;
  }
  return "This table has no layers: it holds one row per experiment, so there are no curves to show.";
}

function adder() {
  const box = el("input", { list: "backbone-names", placeholder: "type to find one", "aria-label": "Add a backbone", onchange: (e) => {
    const b = page.backbones.label.findIndex((_, i) => unique(i) === e.target.value);
    if (b >= 0) select([page.backbones.backbone[b]], true); else say("No backbone has that name");
  } });
  const names = el("datalist", { id: "backbone-names" }, ...passing().slice(0, 500).map((b) => el("option", { value: unique(b) })));
  return el("label", { class: "choice" }, el("span", {}, "add a backbone"), box, names);
}

function datasetTicks() {
  const names = [...new Set(page.curves.dataset)].sort();
  const boxes = names.map((name) => el("label", { class: "tick" }, el("input", { type: "checkbox", "data-dataset": name, checked: !state.data.length || state.data.includes(name), onchange: (e) => {
    const now = new Set(state.data.length ? state.data : names);
    if (e.target.checked) now.add(name); else now.delete(name);
    update({ data: now.size === names.length || !now.size ? [] : names.filter((other) => now.has(other)) });
  } }), name));
  return el("fieldset", { class: "ticks" }, el("legend", {}, "datasets"), ...boxes);
}

function drawLayers(chart) {
  const note = document.getElementById("layers-note");
  if (!state.sel.length) return chart.replaceChildren(el("p", { class: "empty" }, "No backbone is selected. Tick some in Backbones, click a dot in Variables, or type a name above."));
  const short = shortNames(), each = shownCurves().map((c) => [c, layerRows(c, short)]);
  const rows = each.flatMap(([c, lines]) => [...tunnelRow(c, lines), ...lines]);
  if (!rows.length) return chart.replaceChildren(el("p", { class: "empty" }, "Nothing to show for this choice: the table has no such numbers."));
  const first = (row) => (state.panel === "dataset" && row.is_id ? 0 : 1); // ID datasets before the others
  const panels = [...new Set([...rows].sort((a, b) => first(a) - first(b) || (state.panel === "dataset" ? a.panel.localeCompare(b.panel) : 0)).map((row) => row.panel))];
  const { order, looks } = seriesOf(rows);
  const share = state.value === "percent" && state.measure === "accuracy", wide = chartWidth(chart, 0);
  const columns = Math.max(1, Math.min(panels.length, Math.floor((document.getElementById("view").clientWidth + 40) / 360)));
  const width = Math.floor((document.getElementById("view").clientWidth - 70 * columns) / columns);
  const title = share ? "% of the peak layer's accuracy" : state.measure === "accuracy" ? "probe accuracy (%)" : page.measures[state.measure];
  const shaded = rows.filter((row) => row.tunnel).length;
  note.textContent = `${sentence(page.rules[state.rule])} ` + (shaded ? "Shaded: from the peak layer to the last one, where accuracy falls." : "No curve falls after its peak layer.") + (rows.some((row) => row.interval !== "–") ? " Intervals on hovering: Wilson, from the number of test images." : "");
  return draw(chart, shaded ? "layers" : "layers_alone", rows, {
    ...looks, shade: Math.min(0.1, 0.3 / Math.max(1, order.length)), x: X[state.x], y: title, step: state.x === "position" ? 0.01 : 1, format: state.x === "parameters" ? "~s" : "~g", zero: state.measure === "accuracy" && !share, order, panels, columns,
    width: Math.max(220, Math.min(width, wide, 560)), series: state.panel === "dataset" ? "backbone" : "dataset", legend_columns: document.getElementById("view").clientWidth > 1000 && order.every((t) => t.length < 60) ? 2 : 1,
  });
}

// What the table calls a curve's backbone: along training each epoch has a name of its own.
function tableName(c) {
  return page.curves.own_backbone?.[c] ?? ownName(page.curves.backbone[c]);
}

// Series in their order and what they look like. Of all checkpoints colour and dash are when; the shape
// is whose, or also when where they are all of one backbone.
function seriesOf(rows) {
  const { colours, shapes, dashes, range } = page.chart_words, first = new Map();
  for (const row of rows) if (!first.has(row.series)) first.set(row.series, row);
  if (state.epoch !== "all" || state.panel !== "dataset") return { order: [...first.keys()], looks: { colours, shapes, dashes } };
  const when = (row) => (row.epoch === "kept" ? Infinity : row.epoch), whose = (row) => state.sel.indexOf(page.backbones.backbone[row.b]);
  const each = [...first.entries()].sort(([, a], [, b]) => whose(a) - whose(b) || (when(a) < when(b) ? -1 : 1));
  const times = [...new Set(each.map(([, row]) => when(row)))].sort((a, b) => (a < b ? -1 : 1));
  const looks = {
    colours: each.map(([, row]) => between(range, times.indexOf(when(row)) / Math.max(1, times.length - 1))),
    shapes: each.map(([, row]) => shapes[state.sel.length > 1 ? whose(row) : times.indexOf(when(row)) % shapes.length]),
    dashes: each.map(([, row]) => dashes[times.indexOf(when(row)) % dashes.length]),
  };
  return { order: each.map(([name]) => name), looks };
}

// A colour at a share of the way along a range of colours.
function between(range, share) {
  const at = Math.min(range.length - 2, Math.floor(share * (range.length - 1))), part = share * (range.length - 1) - at;
  const [a, b] = [range[at], range[at + 1]].map((text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16)));
  return "#" + a.map((value, k) => Math.round(value + part * (b[k] - value)).toString(16).padStart(2, "0")).join("");
}

// All numbers of the layers that are shown, as the Parquet file has them.
function layerTable() {
  return shownCurves().flatMap((c) => Array.from({ length: page.curves.n[c] }, (_, k) => {
    const i = page.curves.start[c] + k, b = page.curves.backbone[c], row = { backbone: tableName(c), label: page.backbones.label[b] };
    if (page.backbones.sweep) row.sweep = page.backbones.sweep[b];
    for (const name of ["curve_key", "dataset", "is_id", "epoch", "n_test"]) if (name in page.curves) row[name] = page.curves[name][c];
    row.layer_name = page.curves.stacks[page.curves.stack[c]][k];
    for (const name of Object.keys(probe)) row[name] = probe[name][i];
    return row;
  }));
}

function layerSql() {
  const names = [...new Set(shownCurves().map(tableName))].map(quoted).join(", ") || "NULL";
  const parts = [`backbone IN (${names})`, "coalesce(chosen, true)"];
  if (state.epoch !== "all") parts.push(state.epoch === "kept" ? "epoch IS NULL" : `epoch = ${Number(state.epoch)}`);
  if (state.data.length) parts.push(`dataset IN (${state.data.map(quoted).join(", ")})`);
  const columns = ["backbone", "curve_key", "dataset", "is_id", "layer", "accuracy", "choice", ...Object.keys(page.measures)];
  return `SELECT ${columns.join(", ")}\nFROM probes\nWHERE ${parts.join("\n  AND ")}\nORDER BY curve_key, layer`;
}
