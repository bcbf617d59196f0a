// Small parts: elements, controls, charts, downloads.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function say(text) {
  const line = document.getElementById("say");
  line.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => (line.textContent = ""), 4000);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";

// A labelled choice that sets one entry of the state; options are [value, text].
function choice(key, label, options, disabled = false) {
  const box = el("select", { "data-state": key, disabled, onchange: (e) => update({ [key]: options[e.target.selectedIndex][0] }) });
  for (const [value, text] of options) box.append(el("option", { value: String(value), selected: state[key] === value }, text));
  return el("label", { class: "choice" }, el("span", {}, label), box);
}

function tick(key, label) {
  const box = el("input", { type: "checkbox", "data-state": key, checked: state[key], onchange: (e) => update({ [key]: e.target.checked }) });
  return el("label", { class: "tick" }, box, label);
}

// Charts ---------------------------------------------------------------------------------------------------------------
const views = new Map(); // element → what vegaEmbed gave

function fill(spec, words) {
  if (Array.isArray(spec)) return spec.map((part) => fill(part, words));
  if (spec && typeof spec === "object") return Object.fromEntries(Object.entries(spec).map(([k, v]) => [k, fill(v, words)]));
  return typeof spec === "string" && spec.startsWith("$") && spec.slice(1) in words ? words[spec.slice(1)] : spec;
}

function isDark() {
  return state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function chartConfig() {
  const ink = isDark() ? "#e4e9ee" : "#1f2933", line = isDark() ? "#3a4654" : "#dde3ea", muted = isDark() ? "#a7b3bf" : "#5b6776";
  const text = { labelColor: ink, titleColor: muted, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
  return {
    background: isDark() ? "#161c22" : "#ffffff",
    font: 'system-ui, "DejaVu Sans", sans-serif',
    view: { stroke: line },
    axis: { ...text, gridColor: line, domainColor: muted, tickColor: muted, labelOverlap: true },
    axisX: { labelFlush: false, labelSeparation: 4 },
    legend: text,
    header: text,
    rule: { color: ink },
    title: { color: ink },
  };
}

// Draw a chart of the page into an element; a click on a mark that knows its backbone selects it.
async function draw(place, name, rows, words, onclick) {
  views.get(place)?.finalize();
  place.replaceChildren();
  const spec = { ...fill(page.charts[name], words), data: { values: rows } }; // with its rows from the start, or titles are cut off
  const renderer = rows.length > 900 ? "canvas" : "svg";
  let made;
  try {
    made = await vegaEmbed(place, spec, { actions: false, renderer, config: { ...chartConfig(), aria: renderer === "svg" }, tooltip: { theme: isDark() ? "dark" : "light" } });
  } catch (error) { // a level called "constructor", say; the rest of the view stands
    return place.replaceChildren(el("p", { class: "empty" }, `This picture cannot be drawn (${error.message}). The CSV has its numbers.`));
  }
  views.set(place, made);
  made.view.addEventListener("click", (_, item) => {
    const datum = item?.datum?.datum ?? item?.datum;
    if (datum && onclick) onclick(datum);
  });
  return made.view;
}

function sortedLevels(name) {
  return variable[name]?.levels ?? [];
}

// Downloads ------------------------------------------------------------------------------------------------------------
function cell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value !== "string") return String(value);
  const guarded = /^[=+\-@\t\r]/.test(value) ? "'" + value : value; // a spreadsheet would run it
  return /[",\n\r]/.test(guarded) ? '"' + guarded.replaceAll('"', '""') + '"' : guarded;
}

function csv(rows) {
  if (!rows.length) return "";
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return [names.map(cell).join(","), ...rows.map((row) => names.map((name) => cell(row[name])).join(","))].join("\n") + "\n";
}

function save(name, url) {
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  if (url.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// The bar of a view: its numbers, its picture, its SQL. `chart` is the element of the picture, if there is one.
function bar(name, { rows, chart, sql }) {
  const file = (ending) => `${page.title}-${name}.${ending}`.replaceAll(/[^\w.-]+/g, "_");
  const picture = (kind) => async () => {
    const view = views.get(chart)?.view;
    if (!view) return say("There is no picture yet");
    save(file(kind), await view.toImageURL(kind, 2));
  };
  const text = el("pre", { class: "sql", hidden: true, tabindex: 0 });
  const buttons = [el("button", { type: "button", "data-get": "csv", onclick: () => save(file("csv"), URL.createObjectURL(new Blob([csv(rows())], { type: "text/csv" }))) }, "CSV")];
  if (chart) buttons.push(...["svg", "png"].map((kind) => el("button", { type: "button", "data-get": kind, onclick: picture(kind) }, kind.toUpperCase())));
  if (sql) {
    buttons.push(el("button", { type: "button", "data-get": "sql", "aria-expanded": "false", onclick: (e) => {
      text.textContent = sql();
      text.hidden = !text.hidden;
      e.target.setAttribute("aria-expanded", String(!text.hidden));
    } }, "SQL"));
  }
  return el("div", { class: "bar", "data-view": name }, el("div", { class: "buttons" }, ...buttons), text);
}

const WIDE = ["label", "first", "second", "last_label", "reason"]; // columns of long names

const WHOLE = ["scale", "interval", "status", "state"]; // columns that stay on one line, if none is long
const onOneLine = (key, rows) => rows.every((row) => String(row[key] ?? "").length < (WHOLE.includes(key) ? 50 : 17));

// The head of a column, of two lines at most; a first word of two signs has no line of its own.
function headed(title) {
  if (/^\S{1,2} .{1,10}$/.test(title)) return `<span class="short">${escaped(title)}</span>`;
  return title.length > 12 ? `<span class="half" style="min-width: ${Math.min(24, Math.ceil(0.65 * title.length))}ch">${escaped(title)}</span>` : escaped(title);
}

const paged = new Map(); // table → where its reader was: page, rows per page, order; a redraw comes back to it

// A DataTable of rows under a name of its own; heads are {title, key, digits?, least? (of what is below it only that), word?}.
function grid(name, place, heads, rows, options = {}) {
  const element = el("table", { class: "display compact", style: "width:100%", "data-grid": name });
  for (const [key, value] of Object.entries({ tabindex: "0", role: "region", "aria-label": `Table: ${name}` })) place.setAttribute(key, value); // it may scroll
  place.replaceChildren(element);
  const was = paged.get(name), again = was?.n === rows.length && was.heads === heads.length;
  const table = new DataTable(element, {
    data: rows,
    columns: heads.map((head) => ({
      title: headed(head.title), data: (row) => row[head.key] ?? null, className: WIDE.includes(head.key) ? "wide" : !head.word ? "n" : onOneLine(head.key, rows) ? "whole" : "", orderable: head.orderable ?? true,
      render: head.word
        ? { display: (v) => escaped(v ?? "–"), filter: (v) => v, sort: (v) => v, type: (v) => v ?? "" }
        : { display: (v) => escaped(head.least && v !== null && v < head.least ? `< ${head.least}` : show(v, head.digits)), sort: (v) => v ?? -Infinity, type: (v) => v },
      type: head.word ? "string" : "num",
    })),
    deferRender: true, autoWidth: false, pageLength: 25, lengthMenu: [10, 25, 50, 100, 500], order: [], searching: false,
    layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
    ...options, ...(was && { pageLength: was.length }), ...(again && { displayStart: was.start, order: options.order ?? was.order }),
  });
  const keep = (start) => paged.set(name, { n: rows.length, heads: heads.length, length: table.page.len(), start, order: table.order() });
  return table.on("order", () => keep(0)).on("draw", () => keep(table.page.info().start)); // no timer: the next key may come before it
}

function escaped(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("'", "&#39;");
}
