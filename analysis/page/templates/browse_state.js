// What is looked at: every switch, filter and selection, kept in the URL's hash so that a view can be sent.
const DEFAULTS = {
  tab: "backbones", rule: Object.keys(page.rules)[0], metric: Object.keys(page.metrics)[0], sel: [], q: "", sort: "retained asc",
  panel: "dataset", value: "raw", x: "position", measure: "accuracy", epoch: "kept", data: [],
  vx: page.variables[0]?.name ?? "dataset", vy: "", vc: "", vf: "", joined: true,
  target: "", contrast: "", dependence: "", partner: "", filters: {}, theme: "",
};
const state = { ...DEFAULTS, ...readHash() };

function readHash() {
  const found = { filters: {} };
  for (const [key, text] of new URLSearchParams(location.hash.slice(1))) {
    let value;
    try { value = JSON.parse(text); } catch { continue; } // a damaged link shows what of it can be read
    if (key.startsWith("f.") && variable[key.slice(2)] && Array.isArray(value)) found.filters[key.slice(2)] = value;
    else if (key in DEFAULTS && key !== "filters" && typeof value === typeof DEFAULTS[key] && Array.isArray(value) === Array.isArray(DEFAULTS[key])) found[key] = value;
  }
  if (!(found.rule in page.rules)) delete found.rule;
  if (!(found.metric in page.metrics)) delete found.metric;
  if (found.sel) found.sel = found.sel.filter((name) => numberOf.has(name)).slice(0, MOST_SELECTED());
  return found;
}

function MOST_SELECTED() { return 8; }

function hash() {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (key !== "filters" && JSON.stringify(value) !== JSON.stringify(DEFAULTS[key])) parts.set(key, JSON.stringify(value));
  }
  for (const [name, value] of Object.entries(state.filters)) parts.set("f." + name, JSON.stringify(value));
  return "#" + parts.toString();
}

// Change the state and show what follows from it.
function update(change) {
  Object.assign(state, change);
  const next = hash();
  if (next !== (location.hash || "#")) history.replaceState(null, "", next);
  return refresh();
}

// A number passes between its bounds (null: open), a word if it is one of the chosen ones.
function passes(b) {
  for (const [name, wanted] of Object.entries(state.filters)) {
    const value = valueOf(b, name);
    if (variable[name].kind === "number") {
      const [low, high] = wanted;
      if (value === null || (low !== null && value < low) || (high !== null && value > high)) return false;
    } else if (!wanted.includes(value)) return false;
  }
  return !state.q || searched(b).includes(state.q.toLowerCase());
}

const texts = [];
function searched(b) {
  texts[b] ??= [page.backbones.label[b], ...page.variables.filter((v) => v.kind === "word").map((v) => valueOf(b, v.name))].join(" ").toLowerCase();
  return texts[b];
}

function passing() {
  return Array.from({ length: N }, (_, b) => b).filter(passes);
}

// Select a backbone or let it go; at most eight, the oldest goes first.
function select(names, on) {
  let chosen = state.sel.filter((name) => !names.includes(name));
  if (on) chosen = [...chosen, ...names].slice(-MOST_SELECTED());
  if (on && state.sel.length + names.length > MOST_SELECTED()) say(`At most ${MOST_SELECTED()} backbones are compared; the first ones were let go`);
  return update({ sel: chosen });
}
