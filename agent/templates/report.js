"use strict";
(() => {
  const $ = (id) => document.getElementById(id);

  // theme: the system's, until somebody chooses
  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("overnight-theme", value); } catch { /* not from a file */ } };
  try { const saved = localStorage.getItem("overnight-theme"); if (saved) root.dataset.theme = saved; } catch { /* same */ }
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember(root.dataset.theme);
  });

  // tips: the titles of the charts, shown at once and on keyboard focus
  const tip = $("tip");
  const words = new WeakMap();
  const hide = () => { tip.hidden = true; };
  const show = (mark, x, y) => {
    tip.textContent = words.get(mark);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(innerWidth - box.width - 8, x + 12)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
  };
  for (const title of document.querySelectorAll(".chart title")) {
    const mark = title.parentNode;
    words.set(mark, title.textContent);
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
    mark.addEventListener("pointermove", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("focus", () => { const box = mark.getBoundingClientRect(); show(mark, box.right, box.top); });
    mark.addEventListener("blur", hide);
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // a link to an attempt opens it, even where a filter hides it
  const open = () => {
    const row = location.hash.startsWith("#trial-") && $(location.hash.slice(1));
    if (!row) return;
    row.hidden = false;
    const inner = row.querySelector("details");
    if (inner) inner.open = true;
    row.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", open);
  addEventListener("beforeprint", () => { for (const edit of document.querySelectorAll("details.edit")) edit.open = true; });

  const table = $("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, text: row.lastElementChild.textContent.toLowerCase() }));

  // filter
  const filter = () => {
    const parts = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = $("outcome").value, source = $("source").value;
    let count = 0;
    for (const { row, text } of rows) {
      const fits = (!outcome || row.dataset.outcome === outcome) && (!source || row.dataset.source === source)
        && parts.every((part) => text.includes(part));
      row.hidden = !fits;
      count += fits;
    }
    $("shown").textContent = count === rows.length ? count : count + " of " + rows.length;
    $("none").hidden = count > 0;
  };
  $("filters").addEventListener("input", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());

  // sort; what has no value comes last in both directions
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.firstElementChild.dataset.kind === "number";
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => { const cell = row.cells[index]; return numeric ? cell.dataset.sort : cell.textContent.trim().toLowerCase(); };
    const sorted = rows.map(({ row }) => [key(row), row]);
    sorted.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return (numeric ? a - b : a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    });
    body.append(...sorted.map(([, row]) => row));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }));
  filter();
  open();
})();
