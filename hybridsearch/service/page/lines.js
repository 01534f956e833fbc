// The lines between the rankings, and the movement of rows and lines to their new places.

import { s } from "./dom.js";

const MOVE = 260; // milliseconds of a movement
const STUB = 14; // pixels of the line of a document that the next column does not show

export function makeLines() {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let running = 0;
  let drawn = { rows: new Map(), lines: new Map() }; // where rows and lines were last

  function layout(grid, { columns, rows, items, active, hidden, move }) {
    cancelAnimationFrame(running);
    for (const element of items.values()) element.style.transform = element.style.opacity = "";
    const now = hidden ? { rows: new Map(), lines: new Map() } : measure(grid, columns, rows, items);
    const then = drawn;
    drawn = now;
    if (!move || still.matches || !then.rows.size) {
      draw(grid, now.lines, active);
      return;
    }
    const began = performance.now();
    const step = (time) => {
      const part = Math.min(1, Math.max(0, (time - began) / MOVE)), eased = 1 - (1 - part) ** 3;
      for (const [key, top] of now.rows) {
        const from = then.rows.get(key), { style } = items.get(key);
        style.transform = from === undefined || part === 1 ? "" : `translateY(${(from - top) * (1 - eased)}px)`;
        style.opacity = from === undefined && part < 1 ? eased : "";
      }
      draw(grid, new Map([...now.lines].map(([key, line]) => [key, between(then.lines.get(key), line, eased)])), active);
      if (part < 1) running = requestAnimationFrame(step);
    };
    running = requestAnimationFrame(step);
  }

  return { layout, stop() { cancelAnimationFrame(running); } };
}

// A line on its way from one place to another. A new line appears.
function between(from, to, eased) {
  if (from?.kind !== to.kind) return { ...to, faint: eased };
  return { ...to, y1: from.y1 + (to.y1 - from.y1) * eased, y2: from.y2 + (to.y2 - from.y2) * eased };
}

// Where the rows are, and the lines between neighbouring columns
function measure(grid, columns, rows, items) {
  const frame = grid.getBoundingClientRect();
  const rowsAt = new Map(), edges = new Map();
  for (const column of columns) {
    for (const id of column.ids.slice(0, rows)) {
      const key = `${column.key}\n${id}`, box = items.get(key).getBoundingClientRect();
      rowsAt.set(key, box.top - frame.top);
      edges.set(key, { left: box.left - frame.left, right: box.right - frame.left, middle: box.top - frame.top + Math.min(box.height / 2, 26) });
    }
  }
  const lines = new Map();
  columns.slice(1).forEach((right, at) => {
    const left = columns[at];
    for (const id of new Set([...left.ids.slice(0, rows), ...right.ids.slice(0, rows)])) {
      const from = edges.get(`${left.key}\n${id}`), to = edges.get(`${right.key}\n${id}`);
      const was = left.rank.get(id), is = right.rank.get(id);
      const way = was === undefined || is === undefined ? "none" : is < was ? "up" : is > was ? "down" : "level";
      const key = `${left.key}\n${right.key}\n${id}`;
      if (from && to) lines.set(key, { id, way, kind: "line", x1: from.right, y1: from.middle, x2: to.left, y2: to.middle });
      else if (from) lines.set(key, { id, way, kind: "leaves", x1: from.right, y1: from.middle, x2: from.right + STUB, y2: from.middle, text: is ?? "–" });
      else lines.set(key, { id, way, kind: "enters", x1: to.left - STUB, y1: to.middle, x2: to.left, y2: to.middle, text: was ?? "–" });
    }
  });
  return { rows: rowsAt, lines };
}

function draw(grid, lines, active) {
  grid.querySelector(".lines").replaceChildren(...[...lines.values()].map((line) => {
    const bend = (line.x1 + line.x2) / 2;
    const path = s("path", { d: line.kind === "line"
      ? `M${line.x1} ${line.y1}C${bend} ${line.y1} ${bend} ${line.y2} ${line.x2} ${line.y2}` : `M${line.x1} ${line.y1}H${line.x2}` });
    const text = line.text === undefined ? null : s("text", {
      x: line.kind === "leaves" ? line.x1 + 3 : line.x2 - 3, y: line.kind === "leaves" ? line.y1 - 4 : line.y1 + 13,
      "text-anchor": line.kind === "leaves" ? "start" : "end" }, String(line.text));
    const group = s("g", { class: `${line.way} ${line.kind}${line.id === active() ? " on" : ""}`, data: { id: line.id } }, path, text);
    if (line.faint !== undefined && line.faint < 1) group.style.opacity = line.faint;
    return group;
  }));
}
