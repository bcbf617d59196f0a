// The tab Backbones: a table of all that pass the filters, a picture of their means, and what is not there.
const STRENGTHS = ["strong", "medium", "weak", "negligible", "open"];
const MOST_DRAWN = 80;

function summaryOf(b) {
  const sums = page.summaries[state.rule];
  return Object.fromEntries(Object.entries(sums).map(([name, values]) => [name, values[b]]));
}

function backboneRow(b) {
  const row = { b, backbone: ownName(b), label: page.backbones.label[b], ...summaryOf(b) };
  for (const v of page.variables) row[v.name] = page.backbones[v.name][b];
  row.ood_curves = page.backbones.n_datasets[b];
  row.curves_not_there = page.backbones.n_lost[b];
  return row;
}

// Whether means are adjusted for which datasets a backbone has; SQL gives the plain ones.
function adjusted() {
  const { retained, retained_own: own } = page.summaries[state.rule];
  return Boolean(own?.some((value, b) => value !== null && Math.abs(value - retained[b]) > 1e-9));
}

const PLAIN = "-- % retained of the page is adjusted for which datasets a backbone has; the plain mean is retained_own in the CSV, too\nSELECT * EXCLUDE (retained), retained AS retained_own\n";

function backboneHeads() {
  const sums = page.summaries[state.rule], fixed = [
    ["retained", "% retained", 1], ["low", "low", 1], ["high", "high", 1], ["strength", "tunnel", null],
    ["id_final_accuracy", "ID accuracy", 3], ["best_layer", "best layer"], ["tunnel_start", "tunnel after"],
    ["n_layers", "layers", 0], ["n_choosing", "choosing images", 0], ["pearson", "Pearson", 3], ["alignment", "alignment", 3],
  ].filter(([key]) => key in sums && sums[key].some((value) => value !== null));
  const known = fixed.findIndex(([key]) => key === "strength") + 1; // how many curves there are stands before what follows from them
  const head = ([key, title, digits]) => ({ key, title, digits: digits ?? undefined, word: key === "strength" });
  return [
    ...(hasLayers ? [{ title: "compare", key: "b", orderable: false }] : []),
    { title: "backbone", key: "label", word: true },
    ...fixed.slice(0, known).map(head), { title: "curves", key: "status", word: true }, ...fixed.slice(known).map(head),
    ...page.variables.map((v) => ({ key: v.name, title: v.label, word: v.kind === "word" })),
  ];
}

function tableRow(b) {
  const row = backboneRow(b), lost = row.curves_not_there;
  row.status = `${row.ood_curves} OOD` + (lost ? `, ${lost} not there` : "");
  for (const v of page.variables) row[v.name] = valueOf(b, v.name);
  return row;
}

function checkbox(b) {
  const name = page.backbones.backbone[b];
  return el("input", { type: "checkbox", "data-backbone": name, checked: state.sel.includes(name), "aria-label": "Compare " + page.backbones.label[b], onclick: (e) => e.stopPropagation(), onchange: (e) => select([name], e.target.checked) });
}

let backboneTable = null;

function backbonesTab(view) {
  const chart = el("div", { class: "chart" }), place = el("div", { class: "scroll" });
  const heads = backboneHeads();
  const rows = () => sortedBackbones(heads).map((b) => { const { b: _, ...row } = backboneRow(b); return row; });
  const sql = () => sqlText(`${adjusted() ? PLAIN : ""}FROM backbones${where()}${orderSql(heads)}`);
  view.append(
    el("p", { class: "lead" }, `Mean of the OOD accuracy that the last layer keeps, per backbone${adjusted() ? ", adjusted for which datasets it has, as not all have the same" : ""}. ${hasLayers ? "Tick up to eight to compare their layers." : "This table has no layers, so there are no curves to compare."}`),
    bar("backbones", { rows, chart, sql }), place, el("h2", {}, "Means with their 95 % intervals over datasets"), chart, ...failuresPart(),
  );
  const [sorted, direction] = state.sort.split(" ");
  const at = heads.findIndex((head) => head.key === sorted);
  backboneTable = grid("backbones", place, heads, passing().map(tableRow), {
    order: at >= 0 ? [[at, direction === "desc" ? "desc" : "asc"]] : [],
    createdRow: (tr, row) => {
      if (!hasLayers) return;
      tr.firstElementChild.replaceChildren(checkbox(row.b));
      tr.classList.toggle("chosen", state.sel.includes(page.backbones.backbone[row.b]));
      tr.addEventListener("click", () => select([page.backbones.backbone[row.b]], !state.sel.includes(page.backbones.backbone[row.b])));
    },
  });
  backboneTable.on("order", () => {
    const [column, way] = backboneTable.order()[0] ?? [];
    const next = column === undefined || !way ? "" : `${heads[column].key} ${way}`;
    if (next !== state.sort) update({ sort: next });
  });
  return drawStrengths(chart, heads);
}

function sortedBackbones(heads) {
  const found = passing(), [key, way] = state.sort.split(" ");
  if (!key || !heads.some((head) => head.key === key)) return found;
  const rows = new Map(found.map((b) => [b, tableRow(b)])), sign = way === "desc" ? -1 : 1;
  const value = (b) => rows.get(b)[key] ?? (typeof rows.get(found[0])[key] === "string" ? "" : -Infinity);
  return found.sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
}

function orderSql(heads) {
  const [key, way] = state.sort.split(" ");
  const known = { low: null, high: null, status: null, label: "backbone", retained: adjusted() ? "retained_own" : "retained" };
  const column = key in known ? known[key] : key;
  return column && heads.some((head) => head.key === key) ? `\nORDER BY "${column}" ${way.toUpperCase()} NULLS ${way === "asc" ? "FIRST" : "LAST"}` : "";
}

function drawStrengths(chart, heads) {
  const all = sortedBackbones(heads), sums = page.summaries[state.rule];
  if (!sums.retained) return chart.replaceChildren(el("p", { class: "note" }, "No % retained in this table."));
  const known = all.filter((b) => sums.retained[b] !== null);
  const ordered = state.sort ? known : known.sort((a, b) => sums.retained[a] - sums.retained[b]);
  if (!ordered.length) return chart.replaceChildren(el("p", { class: "empty" }, "No backbone passes the filters."));
  const shown = ordered.slice(0, MOST_DRAWN);
  if (known.length < all.length) chart.before(el("p", { class: "note" }, `${all.length - known.length} without a % retained (no accuracy above zero at the peak layer) are not drawn.`));
  if (shown.length < known.length) chart.before(el("p", { class: "note" }, `The first ${MOST_DRAWN} of ${known.length}; filter or sort to see others.`));
  const rows = shown.map((b) => ({
    backbone: page.backbones.backbone[b], label: unique(b), value: sums.retained[b], low: sums.low?.[b] ?? sums.retained[b], high: sums.high?.[b] ?? sums.retained[b],
    interval: sums.low?.[b] === null ? "–" : `${show(sums.low[b], 1)} … ${show(sums.high[b], 1)}`, strength: sums.strength[b],
  }));
  const room = labelRoom(rows.map((row) => row.label));
  return draw(chart, "strengths", rows, { width: chartWidth(chart, room + 30), label_limit: room, legend_columns: room + 420 < chart.clientWidth ? 0 : 2, title: "mean % of OOD accuracy retained", rows: rows.map((row) => row.label), strengths: STRENGTHS }, (datum) => datum.backbone && select([datum.backbone], true));
}

// A label that no other backbone has.
const labelCount = page.backbones.label.reduce((counts, text) => counts.set(text, (counts.get(text) ?? 0) + 1), new Map());
function unique(b) {
  const text = page.backbones.label[b];
  return labelCount.get(text) > 1 ? `${text} · ${page.backbones.backbone[b]}` : text;
}

// Room for the labels of rows: what tells two backbones apart is often at their end. Where they would be cut to the same
// words they are not cut, and the picture scrolls.
function labelRoom(labels, rest = 300) {
  const whole = 7 * Math.max(...labels.map((text) => text.length));
  const room = Math.round(Math.max(100, Math.min(whole, 520, document.getElementById("view").clientWidth - rest)));
  const cut = new Set(labels.map((text) => text.slice(0, Math.floor(room / 7) - 2)));
  return cut.size < new Set(labels).size ? whole : room;
}

function chartWidth(place, less) {
  return Math.max(260, Math.min(900, (place.clientWidth || document.getElementById("view").clientWidth) - less));
}

function notThere() {
  const n = page.failures.length, planned = page.planned >= n ? ` of ${page.planned} planned` : "";
  return `${n}${planned} ${n === 1 && !planned ? "curve is" : "curves are"} not there`;
}

function failuresPart() {
  if (!page.failures.length) return [el("p", { class: "note", id: "failures" }, "No curve failed and none is missing.")];
  const place = el("div", { class: "scroll", id: "failures" });
  const heads = ["state", "label", "dataset", "stage", "reason", "curve"].map((key) => ({ key, title: { label: "backbone", curve: "curve key" }[key] ?? key, word: true }));
  // by the plan's name where there is one: many of these backbones are in no other table
  const rows = page.failures.map((row) => ({ ...row, label: row.label ?? page.backbones.label[numberOf.get(row.backbone)] ?? row.backbone }));
  queueMicrotask(() => grid("failures", place, heads, rows, { pageLength: 10 }));
  return [
    el("h2", {}, notThere()),
    bar("failures", { rows: () => rows, sql: () => sqlText("SELECT state, backbone, dataset, stage, coalesce(exception || ': ', '') || reason AS reason, curve_key\nFROM failures") }), place,
  ];
}
