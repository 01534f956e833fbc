// Why a document has its rank, in a panel at the side: what each retriever adds, the matched terms, and the text.

import { described, sent } from "./config.js";
import { h, number } from "./dom.js";

// `given`: query, filter, configuration, the rankings of the retrievers, the ids of the column, its name, the id, and
// filterBy(path, value).
export function explain(app, given) {
  const names = Object.keys(app.about.retrievers);
  const colour = (name) => `r${Math.max(0, names.indexOf(name)) % 6}`;
  let id = given.id, request = null;
  const body = h("div", { class: "inside" }, h("p", { class: "muted" }, "Explaining…"));
  const place = h("span", { class: "small" });
  const step = (by) => {
    const next = given.ids[given.ids.indexOf(id) + by];
    if (next !== undefined) show(next);
  };
  const before = h("button", { type: "button", class: "quiet icon", "aria-label": "Previous document", title: "Previous (k)", on: { click: () => step(-1) } }, "↑");
  const after = h("button", { type: "button", class: "quiet icon", "aria-label": "Next document", title: "Next (j)", on: { click: () => step(1) } }, "↓");
  const dialog = h("dialog", { class: "drawer", "aria-label": "Explanation", on: {
    keydown: (event) => {
      if (event.target.closest("input, textarea")) return;
      if (event.key === "j") step(1);
      if (event.key === "k") step(-1);
    },
    close: () => request?.abort(),
  } },
  h("div", { class: "top" }, before, after, place, h("button", { type: "button", class: "quiet icon close", "aria-label": "Close", on: { click: () => dialog.close() } }, "✕")), body);
  app.ask(dialog);
  show(id);

  async function show(next) {
    id = next;
    const at = given.ids.indexOf(id);
    before.disabled = at <= 0;
    after.disabled = at < 0 || at === given.ids.length - 1;
    place.textContent = `${given.column}, rank ${at + 1}`;
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    body.classList.add("waits");
    try {
      const found = await app.api(app.at("workbench", app.index, "explain"), {
        query: given.query, id, filter: given.filter, configuration: sent(given.configuration),
      }, { signal });
      body.replaceChildren(...parts(found));
      body.scrollTop = 0;
      app.say(`${found.document?.title || found.id}. ${sentence(found)}`);
    } catch (error) {
      if (!signal.aborted) body.replaceChildren(h("p", { class: "warning", role: "alert" }, error.message));
    }
    if (!signal.aborted) body.classList.remove("waits");
  }

  function parts(found) {
    const document = found.document;
    return [
      h("h2", null, document?.title || found.id), h("p", { class: "id" }, found.id),
      h("p", { class: "lead" }, sentence(found)),
      sums(found), terms(found), document ? text(document) : null, document ? metadata(document) : null,
    ].filter(Boolean);
  }

  function sentence(found) {
    if (found.fused_rank === null) return "No retriever of the configuration has this document among its candidates.";
    const reranked = found.reranker_score !== null && found.reranker_score !== undefined;
    const fusion = `Rank ${found.fused_rank} by fusion (${described(app, given.configuration).split(" · ")[0]})`;
    return reranked ? `${fusion}, rank ${found.rank} after reranking.` : `${fusion}.`;
  }

  function sums(found) {
    const largest = Math.max(1e-300, ...Object.values(found.retrievers).map((one) => Math.abs(one.contribution)));
    const rows = names.map((name) => {
      const one = found.retrievers[name];
      const bar = h("i", { class: `bar ${colour(name)}` });
      bar.style.width = one ? `${(100 * Math.abs(one.contribution)) / largest}%` : "0";
      return h("tr", null, h("th", { scope: "row" }, h("i", { class: `swatch ${colour(name)}` }), name),
        h("td", null, one ? String(one.rank) : "–"), h("td", null, one ? number(one.score, 5) : "–"),
        h("td", { class: "adds" }, one ? number(one.contribution, 5) : "–"), h("td", { class: "bars" }, bar));
    });
    const foot = [
      found.fused_score == null ? null : h("tr", { class: "sum" }, h("th", { scope: "row" }, "Fused score"), h("td", null, String(found.fused_rank)), h("td"),
        h("td", { class: "adds" }, number(found.fused_score, 5)), h("td")),
      found.reranker_score == null ? null : h("tr", { class: "sum" }, h("th", { scope: "row" }, "Reranker"), h("td", null, String(found.rank)),
        h("td", null, number(found.reranker_score, 5)), h("td"), h("td")),
    ];
    return h("table", { class: "sums" },
      h("thead", null, h("tr", null, ["Retriever", "Rank", "Score", "Adds"].map((head) => h("th", { scope: "col" }, head)), h("td"))),
      h("tbody", null, rows), h("tfoot", null, foot));
  }

  function terms(found) {
    const listed = Object.entries(found.terms).filter(([, of]) => Object.keys(of).length);
    if (!listed.length) return null;
    return h("section", null, h("h3", null, "Matched terms"), listed.map(([name, of]) => {
      const most = Math.max(...Object.values(of).map(Math.abs));
      return h("ul", { class: "terms", "aria-label": `Terms of ${name}` }, listed.length > 1 ? h("li", { class: "small" }, name) : null, Object.entries(of).slice(0, 40).map(([term, weight]) => {
        const bar = h("i", { class: `bar ${colour(name)}` });
        bar.style.width = `${(100 * Math.abs(weight)) / most}%`;
        return h("li", null, h("span", { class: "term" }, term), h("span", { class: "weight" }, number(weight, 3)), h("span", { class: "track" }, bar));
      }), Object.keys(of).length > 40 ? h("li", { class: "small" }, `and ${Object.keys(of).length - 40} more`) : null);
    }));
  }

  function text(document) {
    const isDense = (name) => app.about.retrievers[name] === "dense";
    const show = ([part, retrievers]) => {
      const words = retrievers.filter((name) => !isDense(name)), dense = retrievers.find(isDense);
      const inner = words.length ? h("mark", { title: words.join(", ") }, part) : part;
      return dense ? h("span", { class: "nearest", title: `nearest sentence of ${dense}` }, inner) : inner;
    };
    const found = (at) => document.text.filter(([, , best]) => best === at).length;
    const passage = found(true) > 0 && found(false) > 0;
    const first = document.text.findIndex(([, , best]) => best), last = document.text.findLastIndex(([, , best]) => best);
    const best = passage ? h("span", { class: "best" }, document.text.slice(first, last + 1).map(show)) : null;
    const box = h("div", { class: "text", tabindex: 0, role: "group", "aria-label": "Text" }, best
      ? [document.text.slice(0, first).map(show), best, document.text.slice(last + 1).map(show)] : document.text.map(show));
    requestAnimationFrame(() => { if (best) box.scrollTop = best.offsetTop - 24; });
    const more = (characters, where) => characters ? h("p", { class: "small" }, `${characters.toLocaleString("en")} more characters ${where}`) : null;
    return h("section", null, h("h3", null, "Text"),
      document.text.some(([, retrievers]) => retrievers.some(isDense))
        ? h("p", { class: "small" }, h("span", { class: "nearest" }, "Underlined"), ": the sentence that is nearest to the query.") : null,
      best ? h("p", { class: "small" }, "The best passage has a line at its left.") : null,
      more(document.before, "before"), box, more(document.after, "after"));
  }

  function metadata(document) {
    if (document.metadata === null) return h("p", { class: "small" }, "The metadata is too long to show here.");
    const listed = Object.entries(document.metadata);
    if (!listed.length) return null;
    const simple = (value) => ["string", "number", "boolean"].includes(typeof value);
    return h("section", null, h("h3", null, "Metadata"), h("dl", { class: "metadata" }, listed.map(([path, value]) => [
      h("dt", null, path),
      h("dd", null, simple(value) ? String(value) : JSON.stringify(value), " ", simple(value)
        ? h("button", { type: "button", class: "quiet tiny", on: { click: () => { dialog.close(); given.filterBy(path, value); } } }, "filter", h("span", { class: "unseen" }, ` by ${path}`)) : null),
    ])));
  }
}
