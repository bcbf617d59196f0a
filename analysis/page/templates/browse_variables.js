// The tab Variables: any column against any metric, and every backbone on every dataset.
function experimentRows() {
  const values = page.values[state.rule], rows = [];
  for (const b of passing()) {
    for (const e of experimentsOf[b]) {
      const row = { b, e, dataset: page.experiments.dataset[e] };
      for (const name of Object.keys(page.metrics)) row[name] = values[name]?.[e] ?? null;
      rows.push(row);
    }
  }
  return rows;
}

const isMetric = (name) => name in page.metrics;
const columnLabel = (name) => (name === "dataset" ? "dataset" : isMetric(name) ? page.metrics[name].label : variable[name]?.label ?? name);
const isNumber = (name) => isMetric(name) || variable[name]?.kind === "number";

function columnValue(row, name) {
  return name === "dataset" ? row.dataset : isMetric(name) ? row[name] : valueOf(row.b, name);
}

function variablesTab(view) {
  const chart = el("div", { class: "chart" }), heatChart = el("div", { class: "chart scroll" });
  const own = page.variables.map((v) => [v.name, v.label]), metrics = Object.entries(page.metrics).map(([name, m]) => [name, m.label]);
  const all = [...own, ["dataset", "dataset"], ...metrics], none = [["", "nothing"]];
  view.append(
    el("div", { class: "controls" }, choice("vx", "across", all), choice("vy", "up", [["", "the metric above"], ...metrics]),
      choice("vc", "colour", [...none, ["dataset", "dataset"], ...own]), choice("vf", "one panel per", [...none, ["dataset", "dataset"], ...own]), tick("joined", "join matched pairs")),
    bar("variables", { rows: experimentTable, chart, sql: () => sqlText(`FROM experiments${where()}`) }), chart, el("p", { class: "note", id: "pairs-note" }),
    el("h2", {}, "Every backbone on every dataset"), bar("datasets", { rows: experimentTable, chart: heatChart, sql: () => sqlText(`PIVOT (SELECT backbone, dataset, "${state.metric}" FROM experiments${where()}) ON dataset USING first("${state.metric}") GROUP BY backbone`) }), heatChart,
  );
  return Promise.all([drawVariables(chart), drawHeat(heatChart)]);
}

function experimentTable() {
  return experimentRows().map(({ b, e, dataset, ...metrics }) => {
    const row = { backbone: ownName(b), label: page.backbones.label[b], dataset };
    for (const v of page.variables) row[v.name] = page.backbones[v.name][b];
    return { ...row, ...metrics };
  });
}

// Levels of a column in their order.
function orderOf(name, rows) {
  if (name === "dataset") return datasets;
  if (!isMetric(name) && variable[name]) return variable[name].levels.concat(variable[name].if_null && !variable[name].levels.includes(variable[name].if_null) ? [variable[name].if_null] : []);
  return [...new Set(rows.map((row) => String(columnValue(row, name))))];
}

// Lines between experiments of matched pairs: neighbouring values of the column, the rest equal.
function pairRows(points, name) {
  if (!state.joined || isMetric(name) || name === "dataset") return [];
  const levels = variable[name].levels, steps = levels.slice(1).map((level, k) => [levels[k], level]);
  const at = new Map(points.map((row) => [row.b + "|" + row.dataset, row]));
  const found = [];
  for (const [a, b] of matched(name, page.kept[name], steps)) {
    for (const dataset of datasets) {
      const sides = [at.get(a + "|" + dataset), at.get(b + "|" + dataset)];
      if (sides[0] && sides[1]) for (const side of [...sides, { ...sides[1], y: null }]) found.push({ ...side, pair: found.length }); // and a break
    }
    if (found.length > 30000) break;
  }
  return found;
}

// A number in [-1, 1] that is the same each time.
const jitter = (i) => (((i * 2654435761) % 1000) / 1000 - 0.5) * 1.2;

function drawVariables(chart) {
  const rows = experimentRows(), x = state.vx, y = state.vy || state.metric, note = document.getElementById("pairs-note");
  const few = !isNumber(x) || (variable[x]?.levels.length ?? 99) <= 8;
  const points = rows.map((row) => ({
    b: row.b, id: page.backbones.backbone[row.b], backbone: unique(row.b), dataset: row.dataset, jitter: few ? jitter(row.e) : 0,
    x: few ? words(columnValue(row, x) ?? "unknown") : columnValue(row, x), y: row[y],
    series: state.vc ? words(columnValue(row, state.vc) ?? "unknown") : "all", colour: state.vc && isNumber(state.vc) ? columnValue(row, state.vc) : null,
    panel: state.vf ? `${columnLabel(state.vf)}: ${words(columnValue(row, state.vf) ?? "unknown")}` : "",
  })).filter((row) => row.y !== null && row.x !== null);
  if (!points.length) return chart.replaceChildren(el("p", { class: "empty" }, "No experiment passes the filters."));
  const lines = pairRows(points, x);
  const many = state.vc && isNumber(state.vc) && variable[state.vc].levels.length > 8;
  const order = state.vc ? orderOf(state.vc, rows).filter((level) => points.some((row) => row.series === level)) : ["all"];
  const panels = state.vf ? orderOf(state.vf, rows).map((level) => `${columnLabel(state.vf)}: ${level}`) : [""];
  const [nominal, quantitative, shapes] = page.chart_words.legend, total = document.getElementById("view").clientWidth;
  const columns = state.vf ? Math.max(1, Math.min(panels.length, Math.floor((total + 40) / 340))) : 1;
  note.textContent = `${points.length} experiments. ` + (lines.length ? `${lines.length / 3} matched pairs are joined: equal in ${page.kept[x].map(columnLabel).join(", ") || "nothing else"} and the dataset.` : isMetric(x) || x === "dataset" || !state.joined ? "" : "No two backbones differ in this column alone.");
  const spot = { title: columnLabel(state.vc || "dataset"), order, series: state.vc ? columnLabel(state.vc) : " ", legend_columns: order.length > 6 ? 4 : 0 };
  const hidden = { value: page.chart_words.colours[0] };
  return draw(chart, lines.length ? "variables" : "variables_alone", [...lines, ...points], {
    x: columnLabel(x), y: columnLabel(y), x_type: few ? "ordinal" : "quantitative", x_order: few ? orderOf(x, rows) : null,
    x_scale: few ? {} : logarithmic(points) ? { type: "log" } : { zero: false }, offset: few ? page.chart_words.offset : { value: 0 }, panels, columns, order, series: spot.series, angle: few && orderOf(x, rows).some((text) => text.length > 8) && orderOf(x, rows).length > 4 ? -35 : 0,
    width: columns > 1 ? Math.floor((total - 80 * columns) / columns) : Math.max(300, Math.min(total - 90, 900)), height: columns > 1 ? 220 : 340,
    colour: !state.vc ? hidden : fill(many ? quantitative : nominal, spot), shape: !state.vc || many ? { value: "circle" } : fill(shapes, spot),
  }, (datum) => datum.id && select([datum.id], true));
}

function logarithmic(points) {
  const values = points.map((row) => row.x).filter((value) => value > 0);
  return values.length === points.length && Math.max(...values) / Math.min(...values) > 100;
}

function drawHeat(chart) {
  const sums = page.summaries[state.rule], metric = state.metric, rows = experimentRows().filter((row) => row[metric] !== null);
  if (!rows.length) return chart.replaceChildren(el("p", { class: "empty" }, "Nothing to show."));
  const means = new Map();
  for (const row of rows) means.set(row.b, [...(means.get(row.b) ?? []), row[metric]]);
  const ordered = [...means.keys()].sort((a, b) => mean(means.get(a)) - mean(means.get(b)));
  const shown = new Set(ordered.slice(0, MOST_DRAWN)), kept = rows.filter((row) => shown.has(row.b));
  const low = Math.min(...kept.map((row) => row[metric])), high = Math.max(...kept.map((row) => row[metric]));
  if (shown.size < ordered.length) chart.before(el("p", { class: "note" }, `The lowest ${MOST_DRAWN} of ${ordered.length} backbones; filter to see others, or take the CSV.`));
  const digits = high - low > 20 ? 0 : high - low > 2 ? 1 : 2, labels = [...shown].map(unique), room = labelRoom(labels, 46 * datasets.length + 70); // and what slanted words take at the right
  const step = Math.max(38, Math.min(74, Math.floor((document.getElementById("view").clientWidth - room - 70) / datasets.length)));
  return draw(chart, "heat", kept.map((row) => ({
    id: page.backbones.backbone[row.b], label: unique(row.b), dataset: row.dataset, value: row[metric], text: show(row[metric], digits), light: row[metric] > low + 0.6 * (high - low),
  })), { title: columnLabel(metric), rows: labels, label_limit: room, step, angle: datasets.some((name) => 7 * name.length > step) ? -35 : 0 }, (datum) => datum.id && select([datum.id], true));
}
