// The SQL that gives what a view shows. Of the sweep's own probes through the views of analysis/tables/views.sql, of the
// report's estimates from the tables beside it.
function quoted(value) {
  return "'" + String(value).replaceAll("'", "''") + "'";
}

// A column, also with quotes in its name.
const named = (name) => '"' + name.replaceAll('"', '""') + '"';

// A word of a shell's command.
const shell = (text) => (/^[\w./:@%+=,-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'");

// The condition of SQL that the filters are.
function where(more = []) {
  const parts = [...more];
  for (const [name, wanted] of Object.entries(state.filters)) {
    const v = variable[name], own = named(name);
    if (name === "sweep") continue;
    if (v.kind === "number") {
      if (wanted[0] !== null) parts.push(`${own} >= ${wanted[0]}`);
      if (wanted[1] !== null) parts.push(`${own} <= ${wanted[1]}`);
    } else {
      const known = wanted.filter((word) => word !== (v.if_null ?? "unknown"));
      const list = known.map((word) => (v.quoted ? quoted(word) : word.replaceAll(",", ""))).join(", ");
      const options = [...(known.length ? [`${own} IN (${list})`] : []), ...(known.length < wanted.length ? [`${own} IS NULL`] : [])];
      parts.push(options.length ? `(${options.join(" OR ")})` : "false");
    }
  }
  if (state.q) parts.push(`backbone IN (${passing().map((b) => quoted(ownName(b))).join(", ") || "NULL"})`);
  return parts.length ? "\nWHERE " + parts.join("\n  AND ") : "";
}

// A backbone's name in its own sweep.
function ownName(b) {
  const name = page.backbones.backbone[b], sweep = page.backbones.sweep?.[b];
  return sweep ? name.slice(sweep.length + 1) : name;
}

// A statement on the views, by the rule that is set, and what to ask it with.
function sqlText(statement, sources = page.sources, both = "together they are the rows of this view", by = state.rule) {
  if (!page.sources[0].place) return "-- This table was made elsewhere: there are no probes to ask. The CSV has its rows.";
  const rule = by === "heldout" && state.rule === by ? "" : `SET VARIABLE accuracy = ${quoted(by)};\n`;
  const places = sources.map((s) => `-- python -m analysis.sql ${shell(s.place)}`).join("\n");
  return `${sources.length > 1 ? `-- ask both; ${both}\n` : ""}${places}\n${rule}${statement};`;
}

// A statement on the report's tables, each `$name.ending` in it; null where the report has not left one of them.
function reportSql(statement) {
  const { place, tables } = page.report, sweep = page.sources[0].place;
  const wanted = [...statement.matchAll(/\$(\w+\.\w+)/g)].map(([, name]) => name);
  if (!wanted.every((name) => tables.includes(name)) || (/\bexperiments\b/.test(statement) && !sweep)) return null;
  const how = sweep ? `python -m analysis.sql ${shell(sweep)}` : "in DuckDB";
  return () => `-- ${how}\n${statement.replaceAll(/\$(\w+\.\w+)/g, (_, name) => quoted(`${place}/${name}`))};`;
}

function estimatesSql(target, { factor }) {
  const of = ([kind, table, value, low, high]) => `SELECT variable, ${quoted(kind)} AS series, ${value} AS value, ${low} AS low, ${high} AS high FROM $${table}.parquet WHERE target = ${quoted(target)}`;
  const three = [["matched pairs", "pairs"], ["adjusted effect", "adjusted"], ["change by the trees", "trees"]].map(([kind, key]) => [kind, "effects", key, `${key}_low`, `${key}_high`]);
  const all = [...three, ["SHAP slope", "slopes", `${factor} * slope`, `${factor} * low`, `${factor} * high`]];
  return reportSql(`FROM (\n  ${all.map(of).join("\n  UNION ALL ")}\n)\nWHERE value IS NOT NULL`);
}

function contrastsSql(target) {
  return reportSql(`SELECT variable, "from", "to", together_with, n_backbone_pairs AS pairs, mean_difference AS value, low, high, p_adjusted, verdict\nFROM $contrasts.parquet\nWHERE target = ${quoted(target)} AND level = 'backbone' AND mean_difference IS NOT NULL`);
}

function swarmSql(target, { factor }) {
  return reportSql(`SELECT backbone, dataset, variable, ${factor} * shap AS value\nFROM (UNPIVOT (SELECT * EXCLUDE (target) FROM $shap_values.parquet WHERE target = ${quoted(target)})\n  ON COLUMNS(* EXCLUDE (backbone, dataset)) INTO NAME variable VALUE shap)`);
}

function dependenceSql(target, { factor }, name, partner) {
  return reportSql(`SELECT backbone, dataset, e.${named(name)} AS x, ${factor} * s.${named(name)} AS y, e.${named(partner ?? name)} AS series\nFROM $shap_values.parquet s JOIN experiments e USING (backbone, dataset)\nWHERE s.target = ${quoted(target)}`);
}

function interactionsSql(target) {
  return reportSql(`SELECT v[a] AS variable, v[b] AS other, m[a][b] AS value\nFROM (SELECT (i -> 'variables')::VARCHAR[] AS v, (i -> 'matrix')::DOUBLE[][] AS m\n      FROM (SELECT json -> '$.targets.${target}.interactions' AS i FROM read_json_objects($report.json))),\n     unnest(range(1, len(v) + 1)) AS t(a), unnest(range(1, len(v) + 1)) AS u(b)`);
}

// A condition that a column has one of these values of the page; what the page has a word for is null there.
function among(own, name, values) {
  const v = variable[name], known = [...new Set(values)].filter((value) => value !== null && value !== v?.if_null);
  const list = known.map((value) => (typeof value === "number" ? String(value) : quoted(value))).join(", ");
  const options = [...(known.length ? [`${own}.${named(name)} IN (${list})`] : []), ...(values.some((value) => !known.includes(value)) ? [`${own}.${named(name)} IS NULL`] : [])];
  return options.length > 1 ? `(${options.join(" OR ")})` : options[0];
}

const alike = (names) => names.map((name) => `\n  AND a.${named(name)} IS NOT DISTINCT FROM b.${named(name)}`).join("");

function pairsSql(row, pairs) {
  const metric = named(row.target), [from, to] = ["a", "b"].map((side) => among(side, row.variable, pairs.map((pair) => page.backbones[row.variable][pair[side]])));
  return sqlText(`SELECT a.backbone AS first_backbone, b.backbone AS second_backbone, count(*) AS datasets, avg(a.${metric}) AS "from", avg(b.${metric}) AS "to", avg(b.${metric}) - avg(a.${metric}) AS difference\nFROM experiments a JOIN experiments b USING (dataset)\nWHERE ${from}\n  AND ${to}${alike(equalIn(row).filter((name) => name in page.backbones))}\n  AND a.${metric} IS NOT NULL AND b.${metric} IS NOT NULL\nGROUP BY ALL`, page.sources.slice(0, 1), "", reportRule());
}

function againstSql(equal) {
  const [first, second] = page.sources, metric = named(state.metric), rule = state.rule === "heldout" ? "" : ` --accuracy ${state.rule}`;
  if (!first.place || !second.place) return "-- One of the two was made elsewhere: there are no probes to ask. The CSV has its rows.";
  const kept = Object.keys(state.filters).length || state.q ? `\n  AND (${page.sources.map(({ name }, k) => `${"ab"[k]}.backbone IN (${passing().filter((b) => page.backbones.sweep[b] === name).map((b) => quoted(ownName(b))).join(", ") || "NULL"})`).join(" OR ")})` : "";
  const written = [[first, "first"], [second, "second"]].map(([source, name]) => `-- python -m analysis.sql ${shell(source.place)} -c "FROM experiments" --csv${rule} > ${name}.csv`).join("\n");
  return `${written}\n-- python -m analysis.sql ${shell(first.place)}\nSELECT a.backbone, b.backbone AS other_backbone, dataset, a.${metric} AS x, b.${metric} AS y, b.${metric} - a.${metric} AS difference\nFROM 'first.csv' a JOIN 'second.csv' b USING (dataset)\nWHERE a.${metric} IS NOT NULL AND b.${metric} IS NOT NULL${alike(equal.filter((name) => name in page.backbones))}${kept};`;
}
