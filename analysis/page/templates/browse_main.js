// Everything around the views: tabs, switches, filters, the selection; and what is shown when the state changes.
const TABS = { backbones: ["Backbones", backbonesTab], layers: ["Layers", layersTab], variables: ["Variables", variablesTab], drives: ["What drives it", drivesTab], best: ["Best layer", bestTab] };
if (page.tasks) TABS.tasks = ["Tasks", tasksTab];
if (page.sources.length > 1) TABS.against = ["Against", againstTab];
if (!(state.tab in TABS)) state.tab = DEFAULTS.tab;

const byId = (id) => document.getElementById(id);
let drawn = Promise.resolve();

function tabs() {
  const names = Object.keys(TABS);
  return names.map((name, i) => el("button", { type: "button", role: "tab", id: "tab-" + name, "aria-selected": String(state.tab === name), "aria-controls": "view", onclick: () => update({ tab: name }), onkeydown: (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    const next = names[(i + step + names.length) % names.length];
    update({ tab: next });
    byId("tab-" + next).focus();
  } }, TABS[name][0] + (name === "layers" && state.sel.length ? ` (${state.sel.length})` : "")));
}

function facts() {
  const experiments = page.experiments.dataset.length, sources = page.sources.map((s) => s.source).join(" and ");
  const constant = Object.entries(page.constant).map(([name, value]) => `${name} ${value}`).join(", ");
  byId("facts").replaceChildren(
    el("b", {}, [[N, "backbone"], [datasets.length, "OOD dataset"], [experiments, "experiment"]].map(([n, what]) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`).join(", ")), page.n_probes ? `, ${page.n_probes.toLocaleString("en")} probes` : "", ". ",
    page.failures.length ? el("a", { href: "#failures", onclick: (e) => { e.preventDefault(); toFailures(); } }, notThere() + ".") : "", page.failures.length ? " " : "", page.under_way.length ? el("b", {}, `The sweep was running when this page was made: ${page.under_way.length} backbone${page.under_way.length === 1 ? "" : "s"} under way.`) : "", page.under_way.length ? " " : "",
    el("span", { class: "note" }, `From ${sources}.`),
    constant || page.notes.length ? el("details", {}, el("summary", {}, "What is the same for all, and what to know"), constant ? el("p", {}, "The same for all: " + constant + ".") : "", el("ul", {}, ...page.notes.map((note) => el("li", {}, note)))) : "",
  );
}

async function toFailures() {
  if (state.tab !== "backbones") await update({ tab: "backbones" });
  byId("failures").scrollIntoView({ block: "center" });
  byId("failures").focus({ preventScroll: true });
}

function switches() {
  const rules = Object.entries(page.rules), named = { heldout: "held-out (default)", last: "last epoch", paper: "the paper's", given: "as given" };
  const search = el("input", { type: "search", value: state.q, "data-state": "q", placeholder: "architecture, dataset, …", oninput: (e) => update({ q: e.target.value }) });
  byId("switches").replaceChildren(
    el("label", { class: "choice" }, el("span", {}, "search backbones"), search),
    choice("metric", "metric", Object.entries(page.metrics).map(([name, m]) => [name, m.label])),
    choice("rule", "accuracy rule", rules.map(([name]) => [name, named[name] ?? name])),
    el("p", { class: "note", id: "rule-note" }),
  );
}

function filterSummary() {
  const parts = Object.entries(state.filters).map(([name, wanted]) => `${variable[name].label} ${variable[name].kind === "number" ? `${wanted[0] === null ? "" : show(wanted[0])}…${wanted[1] === null ? "" : show(wanted[1])}` : wanted.join(" or ") || "nothing"}`);
  byId("filter-summary").textContent = `Filters: ${parts.length ? parts.join("; ") : "none"}. ${passing().length} of ${N} backbones are shown.`;
  byId("rule-note").textContent = sentence(page.rules[state.rule]);
}

function setFilter(name, wanted) {
  const filters = { ...state.filters };
  if (wanted === null) delete filters[name]; else filters[name] = wanted;
  return update({ filters });
}

// A number of four digits that is not beyond the value: typed as a bound it lets the value pass.
function bounding(value, rounded) {
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 3);
  return value && !Number.isInteger(value) ? String(Number((rounded(value / unit) * unit).toPrecision(4))) : String(value);
}

// One field per column: two bounds for numbers, ticks for words.
function filterFields() {
  const fields = page.variables.map((v) => {
    const wanted = state.filters[v.name];
    if (v.kind === "number") {
      const values = page.backbones[v.name].filter((x) => x !== null), low = Math.min(...values), high = Math.max(...values);
      const bound = (i) => el("input", { type: "number", step: "any", "data-filter": v.name, "data-bound": i, value: wanted?.[i] ?? "", placeholder: bounding(i ? high : low, i ? Math.ceil : Math.floor), "aria-label": `${v.label}, ${i ? "at most" : "at least"}`, onchange: (e) => {
        const next = [...(state.filters[v.name] ?? [null, null])];
        next[i] = e.target.value === "" ? null : Number(e.target.value);
        setFilter(v.name, next.some((x) => x !== null) ? next : null);
      } });
      return el("fieldset", {}, el("legend", {}, v.label), bound(0), " to ", bound(1));
    }
    const levels = [...new Set(page.backbones[v.name].map((_, b) => valueOf(b, v.name)))].sort((a, b) => v.levels.indexOf(a) - v.levels.indexOf(b));
    const boxes = levels.map((level) => el("label", { class: "tick" }, el("input", { type: "checkbox", "data-filter": v.name, value: level, checked: !wanted || wanted.includes(level), onchange: (e) => {
      const now = new Set(state.filters[v.name] ?? levels);
      if (e.target.checked) now.add(level); else now.delete(level);
      setFilter(v.name, now.size === levels.length ? null : levels.filter((x) => now.has(x)));
    } }), level));
    return el("fieldset", { class: boxes.length > 12 ? "long" : "" }, el("legend", {}, v.label), ...boxes);
  });
  byId("filter-grid").replaceChildren(...fields, el("button", { type: "button", id: "clear-filters", onclick: () => { update({ filters: {}, q: "" }); switches(); filterFields(); filterSummary(); } }, "Clear all filters"));
}

function chips() {
  const made = state.sel.map((name) => {
    const label = page.backbones.label[numberOf.get(name)];
    return el("button", { type: "button", class: "chip", "aria-label": "Let go of " + label, title: "Let go of it", onclick: () => select([name], false) }, label, el("span", { "aria-hidden": "true" }, " ✕"));
  });
  byId("chips").replaceChildren(...(made.length ? [el("span", { class: "note" }, "Selected: "), ...made, el("button", { type: "button", class: "chip", onclick: () => update({ sel: [] }) }, "Let all go")] : []));
}

// Show the state. The element that had the focus gets it back, if it is still there under the same name; else the tab.
function refresh() {
  const focus = document.activeElement, inside = Boolean(focus?.closest("#view *, #chips, #tabs")), again = inside ? marks(focus) : null;
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  document.documentElement.classList.toggle("dark", isDark());
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("tabs").replaceChildren(...tabs());
  chips();
  filterSummary();
  const view = byId("view"), started = performance.now(), top = scrollY;
  for (const made of views.values()) made.finalize();
  views.clear();
  view.setAttribute("aria-labelledby", "tab-" + state.tab);
  view.dataset.tab = state.tab;
  view.replaceChildren();
  document.documentElement.dataset.busy = "true";
  drawn = Promise.resolve(TABS[state.tab][1](view)).then(() => {
    if (inside && document.activeElement === document.body) (document.querySelector(again) ?? byId("tab-" + state.tab)).focus({ preventScroll: true });
    scrollTo(0, Math.min(top, document.documentElement.scrollHeight));
    document.documentElement.dataset.redraw = (performance.now() - started).toFixed(0);
    document.documentElement.dataset.busy = "false";
  });
  return drawn;
}

function marks(element) {
  const head = element.closest("th[data-dt-column]");
  if (head) return `[data-grid="${head.closest("table").dataset.grid}"] th[data-dt-column="${head.dataset.dtColumn}"] [tabindex]`;
  for (const name of ["data-state", "data-backbone", "data-dataset", "data-contrast", "id"]) {
    const value = element.getAttribute(name);
    if (value) return `[${name}="${CSS.escape(value)}"]`;
  }
  return "none";
}

byId("theme").addEventListener("click", () => update({ theme: isDark() ? "light" : "dark" }));
byId("copy-link").addEventListener("click", () => navigator.clipboard.writeText(location.href).then(() => say("The link is copied"), () => say("The link is in the address bar")));
document.querySelector("[data-skip]").addEventListener("click", (e) => { e.preventDefault(); byId("view").focus(); });
addEventListener("hashchange", () => {
  Object.assign(state, DEFAULTS, { filters: {} }, readHash());
  if (!(state.tab in TABS)) state.tab = DEFAULTS.tab;
  switches(); filterFields(); refresh();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.theme || refresh());
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(refresh, 200); });
facts();
switches();
filterFields();
await refresh();
document.documentElement.dataset.ready = performance.now().toFixed(0);
