// Look: one query, the ranking of each retriever, and how documents move through fusion and reranking.

import { controls, described, own, read, sent, weightOf, written } from "./config.js";
import { count, h, marked, milliseconds, number, s } from "./dom.js";
import { explain } from "./explain.js";
import { filterPanel, parsed } from "./filter.js";
import { canMerge, merge, rerank } from "./merge.js";

const ROWS = 10, MORE = 20;
const TYPING = 250, SETTLED = 250; // milliseconds without a change before the service is asked
const MOVE = 260; // milliseconds of a movement

export function mount(root, app) {
  const names = Object.keys(app.about.retrievers);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let configs = { a: read(app, "a") ?? own(app), b: read(app, "b") };
  let edited = "a";
  let answer = null; // the last answer of the service
  let documents = {}, scores = {}; // what is known about this query: titles and snippets, and the reranker's scores
  let asked = "", waiting = null, timer = 0;
  let settled = true; // whether the query in the field was sent by Enter
  let rows = ROWS, columns = [], chosen = null, active = null;

  // The page

  const query = h("input", {
    type: "search", id: "query", autocomplete: "off", spellcheck: "false", enterkeyhint: "search", maxlength: 1000,
    placeholder: "Ask the index", props: { value: app.get("q") ?? "" },
  });
  const form = h("form", { class: "ask", role: "search" },
    h("label", { class: "unseen", for: "query" }, "Query"), query, h("kbd", { class: "hint", "aria-hidden": "true" }, "/"));
  const facts = h("div", { class: "facts" });
  const notes = h("div", { class: "notes" });
  const board = h("div", { class: "board" });
  const more = h("button", { type: "button", class: "quiet more", hidden: true, on: { click: () => { rows = rows === ROWS ? MORE : ROWS; render(); } } });
  const editor = h("div");
  const filter = filterPanel(app, app.get("filter"), (text) => { app.set({ filter: text }); later(); });
  const summary = h("summary", null, "Settings ", h("span", { class: "small" }));
  const settings = h("details", { class: "settings card" }, summary, editor, filter, h("div", { class: "actions" },
    h("button", { type: "button", class: "quiet", on: { click: reset } }, "Reset"),
    h("button", { type: "button", class: "quiet", on: { click: copyLink } }, "Copy link")));
  const wide = matchMedia("(min-width: 64rem)");
  const fold = () => { settings.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  root.append(h("h1", { class: "unseen" }, "Look"), form, h("div", { class: "workplace" }, settings, h("div", { class: "results" }, facts, notes, board, more)));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    settled = true;
    ask();
  });
  query.addEventListener("input", () => {
    app.set({ q: query.value }, { push: settled }); // one step for the back button for each query that was sent
    settled = false;
    later(TYPING);
  });
  query.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || !columns.length) return;
    event.preventDefault();
    focusRow(columns.at(-1), 0);
  });
  const size = new ResizeObserver(() => layout());
  size.observe(board);

  edit();
  if (query.value.trim()) ask();
  else {
    start();
    query.focus({ preventScroll: true });
  }

  // What the service is asked

  function later(wait = SETTLED) {
    clearTimeout(timer);
    timer = setTimeout(ask, wait);
  }

  async function ask() {
    clearTimeout(timer);
    waiting?.abort();
    const text = query.value.trim(), wanted = parsed(app.get("filter"));
    if (!text) {
      answer = null;
      start();
      return;
    }
    if (wanted === undefined || active_configs().some(silent)) return;
    const body = { query: text, filter: wanted, configurations: active_configs().map(sent) };
    const key = JSON.stringify([text, wanted]);
    waiting = new AbortController();
    board.classList.add("waits");
    const signal = waiting.signal;
    try {
      const found = await app.api(app.at("workbench", app.index, "look"), body, { signal });
      if (key !== asked) {
        documents = {};
        scores = {};
        active = null;
      }
      asked = key;
      answer = found;
      Object.assign(documents, found.documents);
      for (const system of found.systems) Object.assign(scores, system.reranked);
      board.classList.remove("waits");
      render();
      const first = columns.at(-1)?.ids[0];
      app.say(first ? `${count(total(), "document")}. First: ${titleOf(first)}.` : "No document was found.");
    } catch (error) {
      if (signal.aborted) return;
      board.classList.remove("waits");
      app.fail(error);
    }
  }

  function active_configs() { return configs.b ? [configs.a, configs.b] : [configs.a]; }
  function silent(configuration) { return names.every((name) => weightOf(configuration, name) === 0); }
  function total() { return new Set(Object.values(answer.retrievers).flatMap((one) => one.ids)).size; }
  function titleOf(id) { return documents[id]?.title || id; }

  // The columns

  // The fused and the reranked ranking of a configuration, from the rankings that are here already. `stale` if the
  // service must be asked again.
  function ranked(configuration, system) {
    const merges = canMerge(configuration.fusion);
    const fused = merges ? merge(answer.retrievers, configuration.fusion, configuration.candidates) : system.fused;
    const depth = app.about.reranker?.top_k ?? 0;
    const order = configuration.rerank ? rerank(fused.ids, scores, depth) : null;
    const same = sameFusion(configuration.fusion, system.fusion) && configuration.candidates === system.candidates;
    const deeper = configuration.candidates > Math.max(...answer.systems.map((one) => one.candidates));
    return { fused, order, depth, stale: deeper || (!merges && !same) || (configuration.rerank && !order && fused.ids.length > 0) };
  }

  function makeColumns() {
    const found = Object.keys(app.about.retrievers).filter((name) => answer.retrievers[name]).map((name) => ({
      key: `r:${name}`, name, kind: `r${names.indexOf(name) % 6}`, note: app.about.retrievers[name],
      ids: answer.retrievers[name].ids.slice(0, Math.max(...active_configs().map((one) => one.candidates))),
      scores: answer.retrievers[name].scores,
    }));
    let stale = false;
    for (const [key, configuration] of Object.entries(configs)) {
      if (!configuration || silent(configuration)) continue;
      const system = answer.systems[key === "b" ? answer.systems.length - 1 : 0];
      const { fused, order, depth, stale: old } = ranked(configuration, system);
      const mark = configs.b ? `${key.toUpperCase()} ` : "";
      stale ||= old;
      found.push({ key: `f:${key}`, name: `${mark}fused`, kind: "fused", note: fusionName(configuration), ids: fused.ids, scores: fused.scores, configuration });
      if (configuration.rerank && order) {
        found.push({ key: `x:${key}`, name: `${mark}reranked`, kind: "reranked", note: `first ${depth}`, ids: order,
          scores: order.map((id) => (fused.ids.indexOf(id) < depth ? scores[id] : null)), configuration });
      }
    }
    for (const column of found) column.rank = new Map(column.ids.map((id, place) => [id, place + 1]));
    return { found, stale };
  }

  function fusionName(configuration) { return described(app, configuration).split(" · ")[0]; }

  // Drawing

  let items = new Map(); // row elements by column and id
  let drawn = { rows: new Map(), lines: new Map() }; // where they were drawn last

  function render() {
    if (!answer) return;
    const before = performance.now();
    const { found, stale } = makeColumns();
    const took = performance.now() - before;
    columns = found;
    chosen = columns.some((one) => one.key === chosen) ? chosen : columns.at(-1)?.key;
    const unknown = columns.some((column) => column.ids.slice(0, rows).some((id) => !documents[id]));
    if ((stale || unknown) && !board.classList.contains("waits")) later();
    drawFacts(took);
    drawBoard();
    const longest = Math.max(0, ...columns.map((one) => one.ids.length));
    more.hidden = longest <= ROWS;
    more.textContent = rows === ROWS ? `Show ${MORE} of each` : `Show ${ROWS} of each`;
    layout(true);
  }

  function drawFacts(took) {
    const stages = Object.entries(answer.timings);
    const whole = stages.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
    const bar = h("div", { class: "stages", "aria-hidden": "true" }, stages.map(([name, seconds]) => {
      const part = h("i", { class: `stage-${name.split(" ")[0]}`, title: `${name}: ${milliseconds(seconds)}` });
      part.style.flexGrow = Math.max(seconds / whole, 0.004);
      return part;
    }));
    facts.replaceChildren(
      h("p", { class: "found" }, h("b", null, count(total(), "document")), " among the candidates"),
      h("div", { class: "timing" }, bar, h("ul", { "aria-label": "Time of each stage" }, stages.map(([name, seconds]) =>
        h("li", null, h("i", { class: `swatch stage-${name.split(" ")[0]}` }), name, " ", h("b", null, milliseconds(seconds)))))),
      h("p", { class: "small" }, `merged in the browser in ${milliseconds(took / 1000)}`));
    const sentences = [...answer.notes];
    for (const [key, one] of Object.entries(configs)) if (one && silent(one)) sentences.push(`All weights of ${key.toUpperCase()} are 0, so it finds nothing. Raise one.`);
    notes.replaceChildren(...sentences.map((note) => h("p", { class: "note" }, note)));
  }

  function drawBoard() {
    const focused = document.activeElement?.closest?.(".row");
    const kept = focused && [focused.dataset.column, focused.dataset.id];
    const old = items;
    items = new Map();
    const heads = h("div", { class: "switch", role: "group", "aria-label": "Ranking" }, columns.map((column) =>
      h("button", { type: "button", "aria-pressed": String(column.key === chosen), on: { click: () => { chosen = column.key; drawBoard(); layout(); } } }, column.name)));
    const drawnColumns = columns.map((column) => {
      const title = `column-${column.key}`;
      return h("section", { class: `column ${column.kind}`, "aria-labelledby": title, data: { chosen: String(column.key === chosen) } },
        h("h2", { id: title }, h("span", { class: "name" }, column.name), " ", h("span", { class: "small" }, column.note, " · ", column.ids.length)),
        column.ids.length
          ? h("ol", null, column.ids.slice(0, rows).map((id, place) => row(column, id, place, old.get(`${column.key}\n${id}`))))
          : h("p", { class: "small none" }, "found nothing"));
    });
    board.replaceChildren(heads, h("div", { class: "columns" }, s("svg", { class: "lines", "aria-hidden": "true" }), drawnColumns));
    board.querySelector(".columns").style.setProperty("--columns", columns.length);
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
    items.set(`${column.key}\n${id}`, button);
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

  function roving() {
    for (const column of columns) {
      const own = active !== null && items.get(`${column.key}\n${active}`);
      const first = own || items.get(`${column.key}\n${column.ids[0]}`);
      for (const id of column.ids.slice(0, rows)) items.get(`${column.key}\n${id}`).tabIndex = -1;
      if (first) first.tabIndex = 0;
    }
  }

  function mark(id) {
    active = id;
    board.classList.toggle("marked", id !== null);
    for (const one of board.querySelectorAll(".on")) one.classList.remove("on");
    if (id === null) return;
    for (const column of columns) items.get(`${column.key}\n${id}`)?.classList.add("on");
    for (const line of board.querySelectorAll(".lines > g")) line.classList.toggle("on", line.dataset.id === id);
  }

  // Lines between the columns, and movements

  let running = 0;

  function layout(move = false) {
    const grid = board.querySelector(".columns");
    if (!grid) return;
    const narrow = board.clientWidth < columns.length * 190;
    board.classList.toggle("narrow", narrow);
    cancelAnimationFrame(running);
    for (const element of items.values()) element.style.transform = "";
    if (narrow) {
      grid.querySelector(".lines").replaceChildren();
      drawn = { rows: new Map(), lines: new Map() };
      return;
    }
    const now = measure(grid);
    const then = drawn;
    drawn = now;
    if (!move || still.matches || !then.rows.size) {
      draw(grid, now.lines);
      return;
    }
    const began = performance.now();
    const step = (time) => {
      const part = Math.min(1, Math.max(0, (time - began) / MOVE)), eased = 1 - (1 - part) ** 3;
      for (const [key, top] of now.rows) {
        const from = then.rows.get(key);
        const element = items.get(key);
        if (!element) continue;
        element.style.transform = from === undefined || part === 1 ? "" : `translateY(${(from - top) * (1 - eased)}px)`;
        element.style.opacity = from === undefined && part < 1 ? eased : "";
      }
      const lines = new Map([...now.lines].map(([key, line]) => {
        const from = then.lines.get(key);
        if (!from || from.kind !== line.kind) return [key, { ...line, faint: eased }];
        return [key, { ...line, y1: from.y1 + (line.y1 - from.y1) * eased, y2: from.y2 + (line.y2 - from.y2) * eased }];
      }));
      draw(grid, lines);
      if (part < 1) running = requestAnimationFrame(step);
    };
    running = requestAnimationFrame(step);
  }

  function measure(grid) {
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
        else if (from) lines.set(key, { id, way, kind: "leaves", x1: from.right, y1: from.middle, x2: from.right + 14, y2: from.middle, text: is ?? "–" });
        else lines.set(key, { id, way, kind: "enters", x1: to.left - 14, y1: to.middle, x2: to.left, y2: to.middle, text: was ?? "–" });
      }
    });
    return { rows: rowsAt, lines };
  }

  function draw(grid, lines) {
    grid.querySelector(".lines").replaceChildren(...[...lines.values()].map((line) => {
      const bend = (line.x1 + line.x2) / 2;
      const path = s("path", { d: line.kind === "line"
        ? `M${line.x1} ${line.y1}C${bend} ${line.y1} ${bend} ${line.y2} ${line.x2} ${line.y2}` : `M${line.x1} ${line.y1}H${line.x2}` });
      const text = line.text === undefined ? null : s("text", {
        x: line.kind === "leaves" ? line.x1 + 3 : line.x2 - 3, y: line.kind === "leaves" ? line.y1 - 4 : line.y1 + 13,
        "text-anchor": line.kind === "leaves" ? "start" : "end" }, String(line.text));
      const group = s("g", { class: `${line.way} ${line.kind}${line.id === active ? " on" : ""}`, data: { id: line.id } }, path, text);
      if (line.faint !== undefined && line.faint < 1) group.style.opacity = line.faint;
      return group;
    }));
  }

  // Settings

  function edit() {
    const both = configs.b !== null;
    const tabs = both
      ? h("div", { class: "switch", role: "group", "aria-label": "Configuration to change" }, ["a", "b"].map((key) =>
        h("button", { type: "button", "aria-pressed": String(key === edited), on: { click: () => { edited = key; edit(); } } }, key.toUpperCase())))
      : null;
    const second = h("button", { type: "button", class: "quiet", on: { click: () => {
      configs.b = both ? null : structuredClone(configs.a);
      edited = both ? "a" : "b";
      keep();
      edit();
      later(0);
    } } }, both ? "Remove B" : "Add a second configuration");
    editor.replaceChildren(h("div", { class: "which" }, tabs, second),
      controls(app, configs[edited], (changed) => { configs[edited] = changed; keep(); summarize(); render(); }, { most: Math.min(500, Math.max(app.about.candidates, 100)) }));
    summarize();
  }

  function summarize() {
    summary.lastElementChild.textContent = active_configs().map((one) => described(app, one)).join(" | ");
  }

  function keep() {
    app.set({ a: written(app, configs.a), b: configs.b && JSON.stringify(configs.b) });
  }

  function reset() {
    configs = { a: own(app), b: null };
    edited = "a";
    app.set({ a: null, b: null, filter: null });
    filter.show(null);
    edit();
    ask();
  }

  async function copyLink(event) {
    const button = event.target;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy the address bar";
    }
    app.say(button.textContent);
    setTimeout(() => { button.textContent = "Copy link"; }, 1500);
  }

  // A page without a query

  async function start() {
    columns = [];
    facts.replaceChildren();
    notes.replaceChildren();
    more.hidden = true;
    const tried = h("div", { class: "tries" });
    board.replaceChildren(h("div", { class: "start" },
      h("p", { class: "lead" }, `Type a query to see how ${listed(names)} rank the ${count(app.about.documents, "document")} of ${app.index}, and how fusion merges the rankings.`),
      tried));
    const sets = await app.api(app.at("workbench", app.index, "queries"), undefined, { quiet: true });
    const first = Object.keys(sets)[0];
    if (!first || answer) return;
    const queries = await app.api(app.at("workbench", app.index, "queries", first), undefined, { quiet: true });
    tried.replaceChildren(h("p", { class: "small" }, `Or try a query of ${first}:`), ...queries.slice(0, 5).map((text) =>
      h("button", { type: "button", class: "quiet", on: { click: () => { query.value = text; app.set({ q: text }, { push: true }); settled = true; ask(); } } }, text)));
  }

  // Keys and the explanation

  function focusRow(column, place) {
    const id = column?.ids[Math.max(0, Math.min(place, Math.min(rows, column.ids.length) - 1))];
    items.get(`${column?.key}\n${id}`)?.focus();
    roving();
  }

  function open(column, id) {
    const configuration = column.configuration ?? configs.a;
    explain(app, {
      query: query.value.trim(), filter: parsed(app.get("filter")), configuration, rankings: answer.retrievers, ids: column.ids.slice(0, rows), column: column.name, id,
      filterBy: (path, value) => {
        const text = JSON.stringify({ ...parsed(app.get("filter")), [path]: value });
        app.set({ filter: text }, { push: true });
        filter.show(text);
        ask();
      },
    });
  }

  function key(event) {
    const at = document.activeElement?.closest?.(".row");
    if (!at) {
      if (event.key !== "ArrowDown" || !columns.length) return false;
      focusRow(columns.at(-1), 0);
      return true;
    }
    const number = columns.findIndex((one) => one.key === at.dataset.column), column = columns[number];
    const place = column.rank.get(at.dataset.id) - 1;
    if (event.key === "Escape") query.focus();
    else if (event.key === "ArrowUp" && place === 0) query.focus();
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") focusRow(column, place + (event.key === "ArrowDown" ? 1 : -1));
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const next = columns[number + (event.key === "ArrowRight" ? 1 : -1)];
      if (!next) return true;
      const same = next.rank.get(at.dataset.id);
      if (board.classList.contains("narrow")) {
        chosen = next.key;
        drawBoard();
        layout();
      }
      focusRow(next, same !== undefined && same <= rows ? same - 1 : place);
    } else return false;
    return true;
  }

  return {
    keys: [["↑ ↓", "Go through a ranking"], ["← →", "Follow a document to the next ranking"], ["Enter", "Explain the document"]],
    key,
    unmount() {
      clearTimeout(timer);
      waiting?.abort();
      cancelAnimationFrame(running);
      size.disconnect();
      wide.removeEventListener("change", fold);
    },
  };
}

// "a", "a and b", "a, b and c"
function listed(names) { return names.length < 2 ? names.join() : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`; }

function sameFusion(one, other) {
  const { shown, ...rest } = other;
  const clean = (fusion) => JSON.stringify([fusion.type, fusion.k ?? null, fusion.normalization ?? null, fusion.weights ?? null]);
  return clean(one) === clean(rest);
}
