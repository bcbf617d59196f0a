// The tab Tasks: extractors and tunnels of networks that learned several tasks; only where the sweep has some.
const spanOf = (row, name) => (row[name + "_low"] === null ? "" : `${show(row[name + "_low"], 1)} … ${show(row[name + "_high"], 1)}`);

// What its views show, of the table of courses. A change is paired: with E1+T1 of the same course, split and task.
const TASKS_SQL = {
  tasks: `SELECT configuration, split_by, combination, task, 100 * avg(top1) AS accuracy,
       CASE WHEN combination <> 'E1+T1' THEN 100 * avg(top1 - whole) END AS change, count(top1) AS seeds
FROM (SELECT DISTINCT configuration, course_key, split_by, combination, task, top1,
             max(CASE WHEN combination = 'E1+T1' THEN top1 END) OVER (PARTITION BY course_key, split_by, task) AS whole
      FROM continual WHERE kind = 'combination' AND split_by <> 'all')
GROUP BY configuration, split_by, combination, task
ORDER BY ALL`,
  layers: `SELECT configuration, combination, task, split_layer, 100 * avg(top1) AS accuracy
FROM (SELECT DISTINCT configuration, course_key, combination, task, split_layer, top1
      FROM continual WHERE kind = 'combination' AND split_by = 'all')
GROUP BY ALL
ORDER BY ALL`,
  forgetting: `WITH courses AS (
  SELECT configuration, course_key,
         avg(top1) FILTER (after_task = task AND task < last) - avg(top1) FILTER (after_task = last AND task < last) AS forgetting,
         avg(head_refit_top1) FILTER (after_task = task AND task < last) - avg(head_refit_top1) FILTER (after_task = last AND task < last) AS features,
         avg(head_refit_top1) FILTER (after_task = task - 1 AND task > 1) - avg(head_refit_top1) FILTER (after_task = 0 AND task > 1) AS transfer
  FROM (SELECT *, max(task) OVER (PARTITION BY course_key) AS last FROM continual WHERE kind = 'matrix')
  GROUP BY ALL)
SELECT configuration, 100 * avg(forgetting) AS forgetting, 100 * avg(features) AS features, 100 * avg(transfer) AS transfer,
       count(forgetting) AS seeds
FROM courses
GROUP BY ALL
ORDER BY ALL`,
};
const tasksSql = (name) => () => sqlText(TASKS_SQL[name], page.sources.slice(0, 1));

function tasksTab(view) {
  const found = page.tasks, layers = el("div", { class: "chart" }), lost = el("div", { class: "chart" }), table = el("div", { class: "scroll" }), kept = el("div", { class: "scroll" });
  const rows = found.table.flatMap((row) => [row.first, row.later].filter((own) => own).map((own) => ({ ...row, ...own, interval: spanOf(own, "accuracy"), change_interval: spanOf(own, "change") })));
  const plain = rows.map(({ first: _first, later: _later, ...row }) => row);
  const memory = found.memory.map((row) => ({ ...row, forgetting_interval: spanOf(row, "forgetting"), features_interval: spanOf(row, "features"), transfer_interval: spanOf(row, "transfer") }));
  view.append(
    el("p", { class: "note" }, `Learned one after the other: ${[...new Set(found.memory.map((row) => row.tasks))].join("; ")}. E1 is the layers up to the split after the first task, T2 those behind it after the second. Means over seeds with 95 % t intervals; they follow neither the filters nor the accuracy rule.`),
    el("h2", {}, "Extractors and tunnels together"), bar("tasks", { rows: () => plain, sql: tasksSql("tasks") }), table,
    ...(found.layers.length ? [el("h2", {}, "Accuracy against the split"), bar("tasks-layers", { rows: () => found.layers, chart: layers, sql: tasksSql("layers") }), layers] : []),
    el("h2", {}, "What is forgotten"), bar("forgetting", { rows: () => memory, chart: lost, sql: tasksSql("forgetting") }), lost, kept,
  );
  queueMicrotask(() => {
    grid("tasks", table, [
      { title: "networks", key: "configuration", word: true }, { title: "split", key: "split_by", word: true }, { title: "after layer", key: "split_layer", word: true }, { title: "parts", key: "combination", word: true }, { title: "task", key: "task" },
      { title: "accuracy, %", key: "accuracy", digits: 1 }, { title: "95 % interval", key: "interval", word: true }, { title: "change against E1+T1", key: "change", digits: 1 }, { title: "95 % interval", key: "change_interval", word: true }, { title: "p, Holm", key: "p_holm", digits: 3, least: 0.001 }, { title: "seeds", key: "seeds" },
    ], plain);
    grid("forgetting", kept, [
      { title: "networks", key: "configuration", word: true }, { title: "depth", key: "depth" }, { title: "forgotten, points", key: "forgetting", digits: 1 }, { title: "95 % interval", key: "forgetting_interval", word: true },
      { title: "by the features", key: "features", digits: 1 }, { title: "95 % interval", key: "features_interval", word: true }, { title: "forward transfer", key: "transfer", digits: 1 }, { title: "95 % interval", key: "transfer_interval", word: true }, { title: "seeds", key: "seeds" },
    ], memory);
  });
  const drawn = [];
  if (found.layers.length) {
    const points = found.layers.map((row) => ({ panel: `${row.configuration}: task ${row.task}`, series: row.combination, layer: row.split_layer, value: row.accuracy, interval: row.low === null ? "" : `${show(row.low, 1)} … ${show(row.high, 1)}` }));
    const order = [...new Set(points.map((row) => row.series))], columns = Math.max(1, Math.min(4, Math.floor(view.clientWidth / 345)));
    drawn.push(draw(layers, "tasks_layers", points, { order, panels: [...new Set(points.map((row) => row.panel))], columns, width: Math.min(300, view.clientWidth - 90), legend_columns: order.length, series: "parts" }));
  }
  const kinds = [["forgetting", "the task's own"], ["features", "trained anew"]];
  const points = kinds.flatMap(([name, series], k) => memory.filter((row) => row.depth !== null && row[name] !== null).map((row) => ({ label: row.configuration, series, depth: row.depth + 0.1 * (2 * k - 1), value: row[name], low: row[name + "_low"], high: row[name + "_high"], interval: spanOf(row, name) })));
  drawn.push(points.length ? draw(lost, "tasks_forgetting", points, { order: kinds.map(([, series]) => series), width: Math.min(520, view.clientWidth - 90), legend_columns: 2, series: "classifier" }) : null);
  return Promise.all(drawn);
}
