const { heads, rows } = JSON.parse(document.getElementById("data").textContent);
const escaped = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
const shown = (value, digits) => value === null || value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

const table = new DataTable(document.getElementById("cells"), {
  data: rows,
  columns: heads.map((head) => head.digits === null
    ? { title: escaped(head.title), data: (row) => row[head.key] ?? null, className: head.key === "misprint" ? "wide" : "", type: "string",
        render: { display: (v) => escaped(v ?? "–"), filter: (v) => v, sort: (v) => v ?? "", type: (v) => v ?? "" } }
    : { title: escaped(head.title), data: (row) => row[head.key] ?? null, className: "n", type: "num",
        render: { display: (v) => shown(v, head.digits), sort: (v) => v ?? -Infinity, type: (v) => v } }),
  deferRender: true, autoWidth: false, pageLength: 50, lengthMenu: [25, 50, 100, 500], order: [],
  layout: { topStart: "search", topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
});

const which = document.getElementById("class");
const column = heads.findIndex((head) => head.key === "class");
which.addEventListener("change", () => table.column(column).search(which.value, { exact: true }).draw());
document.documentElement.dataset.ready = "true";
