// Look: one query, the ranking of each retriever, and how documents move through fusion and reranking.

import { makeBoard } from "./board.js";
import { controls, described, own, read, sent, weightOf, written } from "./config.js";
import { count, h, milliseconds } from "./dom.js";
import { explain } from "./explain.js";
import { filterPanel, parsed } from "./filter.js";
import { canMerge, merge, rerank } from "./merge.js";

const ROWS = 10, MORE = 20;
const TYPING = 250, SETTLED = 250; // milliseconds without a change before the service is asked

export function mount(root, app) {
  const names = Object.keys(app.about.retrievers);
  let configs = { a: read(app, "a") ?? own(app), b: read(app, "b") };
  let edited = "a";
  let answer = null; // the last answer of the service
  let documents = Object.create(null), scores = Object.create(null); // what is known about this query: titles and snippets, and the reranker's scores
  let about = "", asked = ""; // the query and filter of the answer, and the whole request
  let waiting = null, timer = 0;
  let settled = true; // whether the query in the field was sent by Enter
  let rows = ROWS, columns = [];

  // The page

  const query = h("input", {
    type: "search", id: "query", autocomplete: "off", spellcheck: "false", enterkeyhint: "search", maxlength: 1000,
    placeholder: "Ask the index", props: { value: app.get("q") ?? "" },
  });
  const form = h("form", { class: "ask", role: "search" },
    h("label", { class: "unseen", for: "query" }, "Query"), query, h("kbd", { class: "hint", "aria-hidden": "true" }, "/"));
  const facts = h("div", { class: "facts" });
  const notes = h("div", { class: "notes" });
  const board = makeBoard({ open, leave: () => query.focus() });
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
  root.append(h("h1", { class: "unseen" }, "Look"), form, h("div", { class: "workplace" }, settings, h("div", { class: "results" }, facts, notes, board.element, more)));

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
    if (event.key === "ArrowDown" && board.enter()) event.preventDefault();
  });

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
    board.wait(false);
    const wanted = body();
    if (!wanted.query) {
      answer = null;
      start();
      return;
    }
    if (wanted.filter === undefined || both().some(silent)) return;
    waiting = new AbortController();
    board.wait(true);
    const signal = waiting.signal;
    try {
      const found = await app.api(app.at("workbench", app.index, "look"), wanted, { signal });
      const key = JSON.stringify([wanted.query, wanted.filter]);
      if (key !== about) [documents, scores] = [Object.create(null), Object.create(null)];
      [about, asked] = [key, JSON.stringify(wanted)];
      answer = found;
      Object.assign(documents, found.documents);
      for (const system of found.systems) Object.assign(scores, system.reranked);
      board.wait(false);
      render();
      const first = columns.at(-1)?.ids[0];
      app.say(first ? `${count(total(), "document")}. First: ${titleOf(first)}.` : "No document was found.");
    } catch (error) {
      if (signal.aborted) return;
      board.wait(false);
      app.fail(error);
    }
  }

  function body() {
    return { query: query.value.trim(), filter: parsed(app.get("filter")), configurations: both().map(sent) };
  }

  function both() { return configs.b ? [configs.a, configs.b] : [configs.a]; }
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
    const order = configuration.rerank ? rerank(fused, scores, depth, app.about.reranker?.blend ?? 0) : null;
    const same = sameFusion(configuration.fusion, system.fusion) && configuration.candidates === system.candidates;
    const deeper = configuration.candidates > Math.max(...answer.systems.map((one) => one.candidates));
    return { fused, order, depth, stale: deeper || (!merges && !same) || (configuration.rerank && !order && fused.ids.length > 0) };
  }

  function makeColumns() {
    const found = Object.keys(app.about.retrievers).filter((name) => answer.retrievers[name]).map((name) => ({
      key: `r:${name}`, name, kind: `r${names.indexOf(name) % 6}`, note: app.about.retrievers[name],
      ids: answer.retrievers[name].ids.slice(0, Math.max(...both().map((one) => one.candidates))),
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
        found.push({ key: `x:${key}`, name: `${mark}reranked`, kind: "reranked", note: `first ${depth}`, ids: order.ids,
          scores: order.scores, configuration });
      }
    }
    for (const column of found) column.rank = new Map(column.ids.map((id, place) => [id, place + 1]));
    return { found, stale };
  }

  function fusionName(configuration) { return described(app, configuration).split(" · ")[0]; }

  // Drawing

  function render() {
    if (!answer) return;
    const before = performance.now();
    const { found, stale } = makeColumns();
    const took = performance.now() - before;
    columns = found;
    const unknown = columns.some((column) => column.ids.slice(0, rows).some((id) => !documents[id]));
    if ((stale || unknown) && JSON.stringify(body()) !== asked) later();
    drawFacts(took);
    const longest = Math.max(0, ...columns.map((one) => one.ids.length));
    more.hidden = longest <= ROWS;
    more.textContent = rows === ROWS ? `Show ${MORE} of each` : `Show ${ROWS} of each`;
    board.show(columns, rows, documents);
  }

  function drawFacts(took) {
    const stages = Object.entries(answer.timings);
    const whole = stages.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
    const colour = (stage) => { // that of the retriever, or that of the stage
      const [kind, name] = stage.split(" ");
      return names.includes(name) ? `r${names.indexOf(name) % 6}` : `stage-${kind}`;
    };
    const bar = h("div", { class: "stages", "aria-hidden": "true" }, stages.map(([name, seconds]) => {
      const part = h("i", { class: colour(name), title: `${name}: ${milliseconds(seconds)}` });
      part.style.flexGrow = Math.max(seconds / whole, 0.004);
      return part;
    }));
    facts.replaceChildren(
      h("p", { class: "found" }, h("b", null, count(total(), "document")), " among the candidates"),
      h("div", { class: "timing" }, bar, h("ul", { "aria-label": "Time of each stage" }, stages.map(([name, seconds]) =>
        h("li", null, h("i", { class: `swatch ${colour(name)}` }), name, " ", h("b", null, milliseconds(seconds)))))),
      h("p", { class: "small" }, `merged in the browser in ${milliseconds(took / 1000)}`));
    const sentences = [...answer.notes];
    for (const [key, one] of Object.entries(configs)) if (one && silent(one)) sentences.push(`All weights of ${key.toUpperCase()} are 0, so it finds no document. Raise a weight.`);
    notes.replaceChildren(...sentences.map((note) => h("p", { class: "note" }, note)));
  }

  // Settings

  function edit() {
    const two = configs.b !== null;
    const tabs = two
      ? h("div", { class: "switch", role: "group", "aria-label": "Configuration to change" }, ["a", "b"].map((key) =>
        h("button", { type: "button", "aria-pressed": String(key === edited), on: { click: () => { edited = key; edit(); } } }, key.toUpperCase())))
      : null;
    const second = h("button", { type: "button", class: "quiet", on: { click: () => {
      configs.b = two ? null : structuredClone(configs.a);
      edited = two ? "a" : "b";
      keep();
      edit();
      later(0);
    } } }, two ? "Remove B" : "Add a second configuration");
    editor.replaceChildren(h("div", { class: "which" }, tabs, second),
      controls(app, configs[edited], (changed) => { configs[edited] = changed; keep(); summarize(); render(); }, { most: Math.min(500, Math.max(app.about.candidates, 100)) }));
    summarize();
  }

  function summarize() {
    summary.lastElementChild.textContent = both().map((one) => described(app, one)).join(" | ");
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
      button.textContent = "Copy the address yourself";
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
    board.clear(h("div", { class: "start" },
      h("p", { class: "lead" }, `Type a query to see how ${listed(names)} rank the ${count(app.about.documents, "document")} of ${app.index}, and how fusion merges the rankings.`),
      tried));
    const load = (...names) => app.api(app.at("workbench", app.index, "queries", ...names), undefined, { quiet: true }).catch(() => ({}));
    const first = Object.keys(await load())[0];
    if (!first || answer) return;
    const queries = await load(first);
    if (!queries.length) return;
    tried.replaceChildren(h("p", { class: "small" }, `Or try a query of ${first}:`), ...queries.slice(0, 5).map(([, text]) =>
      h("button", { type: "button", class: "quiet", on: { click: () => { query.value = text; app.set({ q: text }, { push: true }); settled = true; ask(); } } }, text)));
  }

  // The explanation of a document

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

  return {
    keys: [["↑ ↓", "Go through a ranking"], ["← →", "Follow a document to another ranking"], ["Enter", "Explain the document"],
      ["j k", "In an explanation: next or previous document"]],
    key: board.key,
    unmount() {
      clearTimeout(timer);
      waiting?.abort();
      board.stop();
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
