// The rankings side by side: a column of documents for each, lines between them, and the keys to go through them.
//
// A column is { key, name, kind, note, ids, scores, rank, configuration }. `rank` is a Map from id to rank. Retrievers
// have no configuration.

import { h, marked, number, s } from "./dom.js";
import { makeLines } from "./lines.js";

const NARROWEST = 190; // pixels of a column. If there are fewer, only one ranking is shown at a time.

// `open(column, id)` is called if a document is chosen, and `leave()` if the keys lead out of the board.
export function makeBoard({ open, leave }) {
  const board = h("div", { class: "board" });
  const lines = makeLines();
  let columns = [], rows = 0, documents = {};
  let items = new Map(); // the elements of rows, by column and id
  let chosen = null, active = null;
  const size = new ResizeObserver(() => layout(false));
  size.observe(board);

  const keyOf = (column, id) => `${column?.key}\n${id}`;
  const titleOf = (id) => documents[id]?.title || id;

  function draw() {
    const focused = document.activeElement?.closest?.(".row");
    const kept = focused && [focused.dataset.column, focused.dataset.id];
    items = new Map();
    const heads = h("div", { class: "switch", role: "group", "aria-label": "Ranking" }, columns.map((column) =>
      h("button", { type: "button", "aria-pressed": String(column.key === chosen), data: { column: column.key }, on: { click: () => choose(column.key) } }, column.name)));
    const drawnColumns = columns.map((column) => {
      const title = `column-${column.key}`;
      return h("section", { class: `column ${column.kind}`, "aria-labelledby": title, data: { column: column.key, chosen: String(column.key === chosen) } },
        h("h2", { id: title }, h("span", { class: "name" }, column.name), " ", h("span", { class: "small" }, column.note, " · ", column.ids.length)),
        column.ids.length
          ? h("ol", null, column.ids.slice(0, rows).map((id, place) => row(column, id, place)))
          : h("p", { class: "small none" }, "no document found"));
    });
    board.replaceChildren(heads, h("div", { class: "columns" }, s("svg", { class: "lines", "aria-hidden": "true" }), drawnColumns));
    const { style } = board.querySelector(".columns");
    style.setProperty("--columns", columns.length);
    style.setProperty("--rows", 1 + Math.max(1, ...columns.map((one) => Math.min(rows, one.ids.length)))); // with the heads
    roving();
    if (kept) (items.get(kept.join("\n")) ?? board.querySelector(".row[tabindex='0']"))?.focus({ preventScroll: true });
    mark(active);
  }

  function row(column, id, place) {
    const known = documents[id];
    const below = column.configuration ? chips(column, id)
      : h("span", { class: "chips" }, h("span", { class: "chip" }, "score ", number(column.scores[place], 5)));
    const button = h("button", {
      type: "button", class: "row", tabindex: -1, data: { column: column.key, id },
      on: {
        click: () => open(column, id), focus: () => mark(id), pointerenter: () => mark(id), pointerleave: () => mark(document.activeElement?.dataset?.id ?? null),
      },
    },
    h("span", { class: "rank" }, h("span", { class: "unseen" }, "Rank "), String(place + 1)),
    h("span", { class: "what" },
      h("span", { class: "title", title: titleOf(id) }, titleOf(id)),
      known ? h("span", { class: "snippet" }, marked(known.snippet)) : null,
      below));
    items.set(keyOf(column, id), button);
    return h("li", null, button);
  }

  // The ranks of a document in the columns before this one
  function chips(column, id) {
    const at = columns.indexOf(column);
    const before = columns.slice(0, at).filter((one) => !one.configuration || one.configuration === column.configuration || one.kind === column.kind);
    const place = column.rank.get(id);
    return h("span", { class: "chips" }, before.map((one) => {
      const rank = one.rank.get(id);
      const way = rank === undefined ? "none" : rank > place ? "up" : rank < place ? "down" : "level";
      return h("span", { class: `chip ${way}` }, one.name, " ", rank === undefined ? "–" : String(rank), way === "up" ? " ▲" : way === "down" ? " ▼" : "");
    }));
  }

  // Choose the ranking that a narrow board shows
  function choose(key) {
    chosen = key;
    for (const one of board.querySelectorAll(".switch button")) one.setAttribute("aria-pressed", String(one.dataset.column === key));
    for (const one of board.querySelectorAll(".column")) one.dataset.chosen = String(one.dataset.column === key);
  }

  // One row of each column can be reached by Tab. The arrow keys lead to the others.
  function roving() {
    for (const column of columns) {
      const own = active !== null && items.get(keyOf(column, active));
      const first = own || items.get(keyOf(column, column.ids[0]));
      for (const id of column.ids.slice(0, rows)) items.get(keyOf(column, id)).tabIndex = -1;
      if (first) first.tabIndex = 0;
    }
  }

  // Mark a document in all columns
  function mark(id) {
    active = id;
    board.classList.toggle("marked", id !== null);
    for (const one of board.querySelectorAll(".on")) one.classList.remove("on");
    if (id === null) return;
    for (const column of columns) items.get(keyOf(column, id))?.classList.add("on");
    for (const line of board.querySelectorAll(".lines > g")) line.classList.toggle("on", line.dataset.id === id);
  }

  function focusRow(column, place) {
    const id = column?.ids[Math.max(0, Math.min(place, Math.min(rows, column.ids.length) - 1))];
    items.get(keyOf(column, id))?.focus();
    roving();
  }

  // Whether there is a row to go to
  function enter() {
    if (!columns.length) return false;
    focusRow(board.classList.contains("narrow") ? columns.find((one) => one.key === chosen) : columns.at(-1), 0);
    return true;
  }

  function key(event) {
    const at = document.activeElement?.closest?.(".row");
    if (!at) return event.key === "ArrowDown" && enter();
    const number = columns.findIndex((one) => one.key === at.dataset.column), column = columns[number];
    const place = column.rank.get(at.dataset.id) - 1;
    if (event.key === "Escape") leave();
    else if (event.key === "ArrowUp" && place === 0) leave();
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") focusRow(column, place + (event.key === "ArrowDown" ? 1 : -1));
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const next = columns[number + (event.key === "ArrowRight" ? 1 : -1)];
      if (!next) return true;
      const same = next.rank.get(at.dataset.id);
      if (board.classList.contains("narrow")) {
        choose(next.key);
      }
      focusRow(next, same !== undefined && same <= rows ? same - 1 : place);
    } else return false;
    return true;
  }

  function layout(move) {
    const grid = board.querySelector(".columns");
    if (!grid) return;
    const narrow = board.clientWidth < columns.length * NARROWEST;
    board.classList.toggle("narrow", narrow);
    lines.layout(grid, { columns, rows, items, active: () => active, hidden: narrow, move });
  }

  return {
    element: board, enter, key,
    wait(on) { board.classList.toggle("waits", on); },
    show(newColumns, newRows, newDocuments) {
      [columns, rows, documents] = [newColumns, newRows, newDocuments];
      if (!columns.some((one) => one.rank.has(active))) active = null;
      if (!columns.some((one) => one.key === chosen)) chosen = columns.at(-1)?.key;
      draw();
      layout(true);
    },
    clear(content) {
      columns = [];
      board.replaceChildren(content);
    },
    stop() {
      lines.stop();
      size.disconnect();
    },
  };
}
