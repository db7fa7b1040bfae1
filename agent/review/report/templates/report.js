"use strict";
(() => {
  const $ = (id) => document.getElementById(id);

  // the upper part is drawn first; without all heights, links and the scroll bar would miss their places
  const whole = () => document.documentElement.classList.remove("fresh");
  if (location.hash) whole(); else requestAnimationFrame(() => setTimeout(whole));

  // theme: the system's, until the button is used
  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("overnight-theme", value); } catch { /* no storage for files */ } };
  try { const saved = localStorage.getItem("overnight-theme"); if (saved) root.dataset.theme = saved; } catch { /* no storage for files */ }
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember(root.dataset.theme);
  });

  // tips: the titles of marks, shown without delay and on keyboard focus; two listeners for thousands of marks
  const tip = $("tip");
  const words = new WeakMap();
  const hide = () => { tip.hidden = true; };
  const wordsOf = (mark) => {
    const title = mark.closest?.(".chart") && mark.querySelector(":scope > title");
    if (title) {
      words.set(mark, title.textContent);
      mark.setAttribute("aria-label", title.textContent);
      title.remove();  // else the browser shows it, too
    }
    return words.get(mark);
  };
  const show = (mark, x, y) => {
    const found = wordsOf(mark);
    if (!found) { hide(); return; }
    tip.textContent = found;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(innerWidth - box.width - 8, x + 12)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
  };
  document.addEventListener("pointermove", (event) => show(event.target, event.clientX, event.clientY));
  document.addEventListener("focusin", (event) => { const box = event.target.getBoundingClientRect(); show(event.target, box.right, box.top); });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // everything inside of <main>; a live page calls it again whenever it has replaced <main>
  let attached = new AbortController();
  const attach = () => {
  attached.abort();
  attached = new AbortController();
  const addEventListener = (kind, work, options) => window.addEventListener(kind, work, { signal: attached.signal, capture: options === true });

  // zoom by dragging or by the buttons: marks keep their size, lines are stretched, ticks are recomputed
  const add = (parent, name, attributes, words) => {
    const child = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
    for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
    if (words !== undefined) child.textContent = words;
    return child;
  };
  const ticks = (low, high, about) => {
    const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push([k * step, (k * step).toFixed(decimals)]);
    return found;
  };
  const zooms = [...document.querySelectorAll(".chart[data-plot]")].map((chart, index) => {
    const numbers = (name) => chart.dataset[name].split(" ").map(Number);
    const [left, top, right, bottom] = numbers("plot"), [x0, x1] = numbers("x"), [y0, y1] = numbers("y");
    const clip = add(add(chart, "clipPath", { id: "clip" + index }), "rect", { x: left, y: top, width: right - left, height: bottom - top });
    const stretched = chart.querySelector(".stretched");
    stretched.setAttribute("clip-path", "url(#" + clip.parentNode.id + ")");
    const marks = [...chart.querySelectorAll("circle, a > path")].map((mark) => {
      const at = mark.getAttribute("d")?.match(/-?[\d.]+/g) ?? [mark.getAttribute("cx"), mark.getAttribute("cy")];
      return [mark, Number(at[0]), Number(at[1]), /fail|stopped/.test(mark.getAttribute("class"))];
    });
    const fixed = chart.querySelectorAll(".grid, .tick:not(.axis)");
    const fresh = add(chart, "g", {});
    const lane = Math.max(...[...fixed].map((part) => Number(part.getAttribute("y"))));  // of the trial numbers
    let view = [left, top, right, bottom];
    const draw = () => {
      const [l, t, r, b] = view, sx = (right - left) / (r - l), sy = (bottom - top) / (b - t);
      const whole = sx === 1 && sy === 1, tx = left - l * sx, ty = top - t * sy;
      for (const [mark, x, y, lost] of marks) {
        const dx = x * sx + tx - x, dy = lost ? 0 : y * sy + ty - y, slack = 3;
        mark.setAttribute("transform", `translate(${dx} ${dy})`);
        const inside = x + dx >= left - slack && x + dx <= right + slack && (lost || (y + dy >= top - slack && y + dy <= bottom + slack));
        mark.style.display = inside ? "" : "none";
      }
      for (const path of stretched.children) path.setAttribute("transform", `matrix(${sx} 0 0 ${sy} ${tx} ${ty})`);
      for (const part of fixed) part.style.display = whole ? "" : "none";
      fresh.replaceChildren();
      chart.classList.toggle("zoomed", !whole);
      if (whole) return;
      const value = (at, from, to, low, high) => low + (high - low) * (at - from) / (to - from);
      const [lowX, highX] = [l, r].map((at) => value(at, left, right, x0, x1));
      const [lowY, highY] = [b, t].map((at) => value(at, bottom, top, y0, y1));
      for (const [v, words] of ticks(lowY, highY, 6)) {
        const y = bottom + (top - bottom) * (v - lowY) / (highY - lowY);
        add(fresh, "line", { class: "grid", x1: left, x2: right, y1: y, y2: y });
        add(fresh, "text", { class: "tick", x: left - 6, y: y + 3.5, "text-anchor": "end" }, words);
      }
      for (const [v, words] of ticks(lowX, highX, 8)) if (Number.isInteger(v))
        add(fresh, "text", { class: "tick", x: left + (right - left) * (v - lowX) / (highX - lowX), y: lane, "text-anchor": "middle" }, words);
      chart.insertBefore(fresh, stretched);
    };
    const least = [(right - left) / 200, (bottom - top) / 200];
    const look = (l, t, r, b) => {
      [l, r] = [Math.max(left, Math.min(l, r)), Math.min(right, Math.max(l, r))];
      [t, b] = [Math.max(top, Math.min(t, b)), Math.min(bottom, Math.max(t, b))];
      if (r - l >= least[0] && b - t >= least[1]) { view = [l, t, r, b]; draw(); }
    };
    const by = (factor) => {
      const [l, t, r, b] = view, w = factor * (r - l) / 2, h = factor * (b - t) / 2, cx = (l + r) / 2, cy = (t + b) / 2;
      factor ? look(cx - w, cy - h, cx + w, cy + h) : look(left, top, right, bottom);
    };
    const place = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    let from = null, frame = null;
    chart.addEventListener("pointerdown", (event) => { if (event.button === 0 && event.pointerType !== "touch") from = place(event); });
    addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = place(event);
      if (!frame && Math.hypot(to.x - from.x, to.y - from.y) < 6) return;
      frame ??= add(chart, "rect", { class: "frame" });
      const x = Math.min(from.x, to.x), y = Math.min(from.y, to.y);
      for (const [key, v] of Object.entries({ x, y, width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y) })) frame.setAttribute(key, v);
    });
    addEventListener("pointerup", (event) => {
      if (frame) {
        const to = place(event), [l, t, r, b] = view, sx = (r - l) / (right - left), sy = (b - t) / (bottom - top);
        const back = (p) => [l + (p.x - left) * sx, t + (p.y - top) * sy];
        look(...back(from), ...back(to));
        frame.remove();
        const still = (click) => click.preventDefault();  // the end of a drag is not a click
        window.addEventListener("click", still, true);
        setTimeout(() => window.removeEventListener("click", still, true));
      }
      from = frame = null;
    });
    chart.addEventListener("dragstart", (event) => event.preventDefault());
    chart.addEventListener("dblclick", () => by(0));
    return by;
  });
  if (zooms.length) {
    $("zoom").hidden = false;
    $("zoom").addEventListener("click", (event) => {
      const factor = event.target.dataset.by;
      if (factor !== undefined) for (const by of zooms) by(Number(factor));
    });
  }

  // a link to an attempt opens it, also if a filter hides it
  const open = () => {
    const row = location.hash.startsWith("#trial-") && $(location.hash.slice(1));
    if (!row) return;
    row.hidden = false;
    const inner = row.querySelector("details");
    if (inner) inner.open = true;
    row.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", open);
  for (const link of document.querySelectorAll('a[href="#environment"]')) link.addEventListener("click", () => { $("environment").querySelector("details").open = true; });
  addEventListener("beforeprint", () => { for (const edit of document.querySelectorAll("details.edit, .long, #environment details")) edit.open = true; });

  const table = $("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows], texts = new Map();
  const textOf = (row) => texts.get(row) ?? texts.set(row, row.lastElementChild.textContent.toLowerCase()).get(row);

  // filter
  const filter = () => {
    const parts = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = $("outcome").value, source = $("source").value;
    let count = 0;
    for (const row of rows) {
      const fits = (!outcome || row.dataset.outcome === outcome) && (!source || row.dataset.source === source)
        && parts.every((part) => textOf(row).includes(part));
      row.hidden = !fits;
      count += fits;
    }
    $("shown").textContent = count === rows.length ? count : count + " of " + rows.length;
    $("none").hidden = count > 0;
  };
  $("filters").addEventListener("input", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());

  // sort; rows without a value come last in both directions
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.firstElementChild.dataset.kind === "number";
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => { const cell = row.cells[index]; return numeric ? cell.dataset.sort : cell.textContent.trim().toLowerCase(); };
    const sorted = rows.map((row) => [key(row), row]);
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
  };
  attach();
  root.addEventListener("replaced", attach);
})();
