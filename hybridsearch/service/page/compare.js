// Compare: two configurations over many queries, and the queries whose results change most.

import { controls, described, own, read, sent, written } from "./config.js";
import { count, h, s } from "./dom.js";
import { ENDINGS, linesOf, queriesOf } from "./queries.js";

const AT_ONCE = 20; // queries in one request
const LISTED = 100; // queries that are listed at first

const last = new Map(); // the last comparison of each index, so that it is still there when the user comes back

export function mount(root, app) {
  const first = read(app, "a") ?? own(app);
  const configs = { a: first, b: read(app, "b") ?? otherThan(first) };
  const key = `hybridsearch-queries-${app.index}`;
  let running = null, found = [], titles = Object.create(null), notices = [], compared = null, listed = LISTED;

  // What to compare

  const editors = h("div", { class: "pair" }, ["a", "b"].map((name) => {
    const line = h("p", { class: "small" }, described(app, configs[name]));
    return h("section", { class: `card configuration ${name}`, "aria-label": `${name.toUpperCase()}, settings` },
      h("h2", null, h("b", { class: "letter" }, name.toUpperCase()), " ", line),
      controls(app, configs[name], (changed) => {
        configs[name] = changed;
        line.textContent = described(app, changed);
        keep();
      }, { most: Math.min(500, Math.max(app.about.candidates, 100)) }));
  }));
  const sets = h("div", { class: "sets" });
  const field = h("textarea", { id: "queries", rows: 6, spellcheck: "false", placeholder: "One query in each line", props: { value: kept() }, on: { input: () => { counted(); } } });
  const file = h("input", { type: "file", class: "unseen", id: "file", accept: ENDINGS, tabindex: -1, "aria-hidden": "true", on: { change: () => { if (file.files[0]) readFile(file.files[0]); } } });
  const number = h("span", { class: "small", role: "status" });
  const top = h("input", { type: "number", id: "top", min: 1, max: 50, step: 1, value: app.get("top") ?? 10, on: { change: () => app.set({ top: depth() === 10 ? null : depth() }) } });
  const go = h("button", { type: "submit", class: "main" }, "Compare");
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Queries compared", hidden: true });
  const form = h("form", { class: "card queries", on: {
    submit: (event) => { event.preventDefault(); running ? running.abort() : run(); },
    dragover: (event) => event.preventDefault(),
    drop: (event) => { if (event.dataTransfer.files[0]) { event.preventDefault(); readFile(event.dataTransfer.files[0]); } },
  } },
  h("div", { class: "head" }, h("h2", null, h("label", { for: "queries" }, "Queries")), number), sets, field, file,
  h("div", { class: "actions" },
    h("button", { type: "button", on: { click: () => file.click() } }, "Open a file"),
    h("label", { class: "check", for: "top" }, "First", top, "hits"), go, progress));
  const notes = h("div", { class: "notes" }), results = h("div", { class: "results" });
  root.append(h("h1", { class: "unseen" }, "Compare"), h("div", { class: "asking" }, editors, form), notes, results);
  counted();
  offer();

  function depth() { return Math.min(50, Math.max(1, Math.round(Number(top.value)) || 10)); }
  function queries() { return [...new Set(field.value.split("\n").map((line) => line.trim()).filter(Boolean))]; }
  function keep() { app.set({ a: written(app, configs.a), b: JSON.stringify(configs.b) }); }

  function kept() {
    try { return sessionStorage.getItem(key) ?? ""; } catch { return ""; }
  }

  function counted() {
    const there = queries();
    number.textContent = there.length ? count(there.length, "query", "queries") : "";
    go.disabled = !there.length && !running;
    try { sessionStorage.setItem(key, field.value); } catch { /* too long to keep */ }
  }

  async function offer() {
    const known = await app.api(app.at("workbench", app.index, "queries"), undefined, { quiet: true }).catch(() => ({}));
    sets.replaceChildren(...Object.entries(known).map(([name, size]) => h("button", { type: "button", class: "quiet", on: { click: async () => {
      try {
        field.value = linesOf(await app.api(app.at("workbench", app.index, "queries", name)));
        counted();
      } catch (error) { app.fail(error); }
    } } }, `${name} (${count(size, "query", "queries")})`)));
  }

  async function readFile(chosen) {
    file.value = "";
    try {
      field.value = linesOf(await queriesOf(app, chosen));
    } catch (error) {
      app.fail(error);
      return;
    }
    counted();
    app.say(number.textContent);
  }

  // Comparing

  async function run() {
    const all = queries(), first = depth();
    running = new AbortController();
    const { signal } = running;
    found = [];
    titles = Object.create(null);
    notices = [];
    listed = LISTED;
    compared = { a: structuredClone(configs.a), b: structuredClone(configs.b), first };
    keep();
    go.textContent = "Stop";
    progress.hidden = false;
    progress.max = all.length;
    try {
      for (let start = 0; start < all.length; start += AT_ONCE) {
        progress.value = start;
        const answer = await app.api(app.at("workbench", app.index, "compare"), {
          queries: all.slice(start, start + AT_ONCE), configurations: [sent(compared.a), sent(compared.b)], top: first,
        }, { signal });
        found.push(...answer.queries);
        Object.assign(titles, answer.titles);
        notices = [...new Set([...notices, ...answer.notes])];
        last.set(app.index, { found, titles, notices, compared });
        draw();
      }
      app.say(`${count(found.length, "query", "queries")} compared. ${sentence()}`);
    } catch (error) {
      if (!signal.aborted) app.fail(error);
    } finally {
      running = null;
      go.textContent = "Compare";
      progress.hidden = true;
      counted();
    }
  }

  // The last comparison, if it was of these settings
  function restore() {
    const same = (one) => JSON.stringify([one.a, one.b, one.first]) === JSON.stringify([configs.a, configs.b, depth()]);
    const before = last.get(app.index);
    if (!before || !same(before.compared)) return;
    ({ found, titles, notices, compared } = before);
    draw();
  }

  // What was found

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / (values.length || 1);
  const firstDiffers = (one) => one.hits[0][0] !== one.hits[1][0];
  const equal = (one) => JSON.stringify(one.hits[0]) === JSON.stringify(one.hits[1]);

  function sentence() {
    const same = found.filter(equal).length;
    return same === found.length ? "All results are the same." : `${count(found.length - same, "query changes", "queries change")}.`;
  }

  function draw() {
    const order = results.querySelector("#order")?.value ?? "rbo";
    const sorted = found.map((one, place) => ({ ...one, place }));
    if (order === "rbo") sorted.sort((one, other) => one.rbo - other.rbo || one.place - other.place);
    if (order === "overlap") sorted.sort((one, other) => one.overlap - other.overlap || one.rbo - other.rbo || one.place - other.place);
    const tiles = [
      ["Common hits", `${(100 * mean(found.map((one) => one.overlap))).toFixed(1)}%`, `of the first ${compared.first}, on average`],
      ["Rank-biased overlap", mean(found.map((one) => one.rbo)).toFixed(3), "1: same hits in the same order, 0: no common hit"],
      ["Another first hit", String(found.filter(firstDiffers).length), `of ${count(found.length, "query", "queries")}`],
      ["Not changed", String(found.filter(equal).length), "queries with the same hits in the same order"],
    ];
    const choose = h("select", { id: "order", on: { change: draw } }, [["rbo", "Most changed first"], ["overlap", "Fewest common hits first"], ["given", "In the order given"]]
      .map(([value, label]) => h("option", { value, selected: value === order }, label)));
    const focused = document.activeElement?.id === "order";
    notes.replaceChildren(...notices.map((note) => h("p", { class: "note" }, note)));
    results.replaceChildren(
      h("div", { class: "tiles" }, tiles.map(([label, value, note]) => h("div", { class: "card tile" },
        h("p", { class: "small" }, label), h("p", { class: "value" }, value), h("p", { class: "small" }, note)))),
      histogram(),
      h("div", { class: "head" }, h("h2", null, "Queries"), h("label", { class: "unseen", for: "order" }, "Order"), choose),
      h("ol", { class: "changes" }, sorted.slice(0, listed).map(entry)),
      sorted.length > listed ? h("button", { type: "button", class: "quiet", on: { click: () => { listed += LISTED; draw(); } } },
        `Show ${Math.min(LISTED, sorted.length - listed)} more of ${sorted.length.toLocaleString("en")}`) : null ?? "");
    if (focused) results.querySelector("#order").focus();
  }

  // How many queries have which rank-biased overlap
  function histogram() {
    const bins = Array(10).fill(0);
    for (const one of found) bins[Math.min(9, Math.floor(one.rbo * 10))] += 1;
    const most = Math.max(...bins);
    return h("figure", { class: "card spread" },
      h("figcaption", { class: "small" }, "Queries by rank-biased overlap"),
      h("div", { class: "bins", role: "img", "aria-label": bins.map((size, place) => `${place / 10} to ${(place + 1) / 10}: ${size}`).join(", ") },
        bins.map((size, place) => {
          const bar = h("i", { title: `${place / 10} to ${(place + 1) / 10}: ${count(size, "query", "queries")}` });
          bar.style.height = size ? `max(2px, ${(100 * size) / most}%)` : "0";
          return h("span", null, bar);
        })),
      h("div", { class: "axis small" }, h("span", null, "0: no common hit"), h("span", null, "1: the same")));
  }

  function entry(one) {
    const [before, after] = one.hits;
    const name = (id) => (id === undefined ? "nothing" : titles[id] || id);
    const came = after.filter((id) => !before.includes(id)).length;
    const changes = [
      firstDiffers(one) ? h("span", null, "First hit: ", h("s", null, name(before[0])), " → ", h("b", null, name(after[0]))) : h("span", null, "First hit: ", name(before[0])),
      came ? h("span", null, count(came, "new hit")) : null,
    ];
    const meter = h("i", null);
    meter.style.width = `${100 * one.rbo}%`;
    return h("li", null, h("a", { class: "card change", href: app.link("look", { q: one.query, a: written(app, compared.a), b: JSON.stringify(compared.b) }) },
      slope(before, after),
      h("span", { class: "what" }, h("span", { class: "title" }, one.query), h("span", { class: "small" }, changes)),
      h("span", { class: "measures" },
        h("span", null, h("b", null, String(before.filter((id) => after.includes(id)).length)), h("span", { class: "small" }, ` of ${Math.max(before.length, after.length)} common`)),
        h("span", { class: "meter", "aria-hidden": "true" }, meter),
        h("span", { class: "small" }, "RBO ", h("b", null, one.rbo.toFixed(2))))));
  }

  // The hits of A at the left and of B at the right, with a line for each document
  function slope(before, after) {
    const width = 96, height = 56, longest = Math.max(before.length, after.length, 2);
    const y = (place) => 5 + (place * (height - 10)) / (longest - 1);
    const lines = before.flatMap((id, place) => {
      const to = after.indexOf(id);
      return to < 0 ? [] : [s("path", { class: to < place ? "up" : to > place ? "down" : "level", d: `M8 ${y(place)}C${width / 2} ${y(place)} ${width / 2} ${y(to)} ${width - 8} ${y(to)}` })];
    });
    const dot = (x, place, other, id) => s("circle", { cx: x, cy: y(place), r: 2.2, class: other.includes(id) ? "kept" : x < width / 2 ? "went" : "came" });
    return s("svg", { class: "slope", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" }, lines,
      before.map((id, place) => dot(6, place, after, id)), after.map((id, place) => dot(width - 6, place, before, id)));
  }

  restore();
  return { unmount() { running?.abort(); } };
}

// Another fusion with the same weights, or with equal weights if one retriever is used alone.
function otherThan(configuration) {
  const given = configuration.fusion.weights ?? null;
  const weights = given && Object.values(given).filter((weight) => weight > 0).length > 1 ? given : null;
  return { ...configuration, fusion: configuration.fusion.type === "rrf" ? { type: "score", weights, normalization: "minmax" } : { type: "rrf", weights, k: 60 } };
}
