// Choose: the judged queries measure the usual systems and tune a fusion, and the fusion that people choose goes into use.

import { described, EXPLAINED, labelled } from "./config.js";
import { h, milliseconds } from "./dom.js";
import { refused, watch } from "./job.js";
import { table } from "./judge.js";
import { settlement } from "./settle.js";

const MEASURES = {
  nDCG: "how well the first documents are ordered by their grades",
  RR: "1 divided by the rank of the first relevant document",
  AP: "the precision at the rank of each relevant document, on average",
  R: "the share of the relevant documents that are found",
};

export async function mount(root, app) {
  const at = (...names) => app.at("workbench", app.index, ...names);
  const leaving = new AbortController();
  let found;
  try {
    found = await app.api(at("choice"));
  } catch (error) {
    if (error.status !== 404) throw error;
    refused(root, error, app.index);
    return {};
  }
  const nodes = { used: h("div"), start: h("div"), running: h("div"), result: h("div", { class: "measured" }) };
  root.append(h("div", { class: "judging-head" }, h("h1", null, "Choose")), nodes.used, nodes.start, nodes.running, nodes.result);
  draw();
  if (found.job.state === "running") follow(found.job);
  return { unmount: () => leaving.abort() };

  function draw() {
    drawUsed();
    drawStart();
    drawResult();
    if (found.result) nodes.result.after(nodes.start);
  }

  async function again() {
    found = await app.api(at("choice"));
    if (!leaving.signal.aborted) draw();
  }

  async function follow(job) {
    nodes.start.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    const ended = await watch(app, nodes.running, job, leaving.signal);
    if (leaving.signal.aborted) return;
    const said = document.querySelector("#problem:not([hidden])")?.textContent;
    await again();
    if (ended.state !== "done" && said) app.fail(new Error(said));
  }

  function drawUsed() {
    const back = found.use_refused ? null : h("div", { class: "actions" }, h("button", { type: "button", on: { click: () => change(() => app.api(at("use"), undefined, { method: "DELETE" })) } }, "Use the index’s own fusion again"));
    if (found.refused) {
      nodes.used.replaceChildren(h("div", { class: "card used" },
        h("p", { class: "note" }, `The chosen fusion, JUDGEMENTS/${found.file}, has no effect, because it does not fit the index. The log of the service has the reason.`), back));
      return;
    }
    if (!found.in_use) return nodes.used.replaceChildren();
    nodes.used.replaceChildren(h("div", { class: "card used" },
      h("div", null, h("b", null, "In use: "), inWords()),
      h("p", { class: "small" }, "All searches of this service use this fusion, also after the next start. The command line can use it too. JUDGEMENTS is the folder of --judgements:"),
      h("pre", { tabindex: 0 }, h("code", null, `hybridsearch search PLACE "a question" --fusion JUDGEMENTS/${found.file}`)),
      back));
  }

  function inWords() {
    const fusion = found.in_use.fusion ?? found.in_use; // of a tuned fusion, or the fusion
    return described(app, { fusion, candidates: found.candidates, rerank: Boolean(app.about.reranker) });
  }

  function drawStart() {
    if (!Object.keys(found.judges).length) {
      nodes.start.replaceChildren(h("div", { class: "card empty" },
        h("h2", null, "There are no judged queries yet"),
        h("p", { class: "muted" }, "Judge 25 queries or more. Then this page measures which search is the best for them."),
        h("div", { class: "actions" }, h("a", { class: "button", href: app.link("judge") }, "Go to Judge"))));
      return;
    }
    const settle = settlement(found.judges, { finished: found.finished });
    nodes.start.replaceChildren(h("form", { class: "card choose-start", on: { submit: start } },
      h("h2", null, found.result ? "Measure again" : "Measure and tune"),
      h("p", { class: "muted" }, "This measures each retriever alone, fusions with equal weights, and a fusion that is tuned by cross-validation. It uses the finished queries."),
      settle.node,
      h("div", { class: "actions" }, h("button", { class: found.result ? "" : "main", disabled: !found.may_write }, "Measure and tune")),
      found.may_write ? null : h("p", { class: "note" }, "This token may read, but not write.")));

    async function start(event) {
      event.preventDefault();
      try {
        follow(await app.api(at("choice"), settle.value()));
      } catch (error) {
        app.fail(error);
      }
    }
  }

  function drawResult() {
    const { result } = found;
    if (!result) return nodes.result.replaceChildren();
    const { systems, tuned, measure } = result;
    const best = systems.reduce((one, other) => (other.means[measure].mean > one.means[measure].mean ? other : one));
    const rows = systems.map((one) => [
      [h("span", { class: "swatch", data: { kind: one.kind } }), h("b", null, labelled(one.name)), one.kind === "single" ? null : h("div", { class: "small" }, explained(one))],
      range(one.means[measure], one.kind),
      one.gain ? gain(one) : "",
      ...result.measures.slice(1).map((name) => h("span", { class: "figure" }, one.means[name].mean.toFixed(3))),
      one.milliseconds === null ? "" : h("span", { class: "figure" }, milliseconds(one.milliseconds / 1000)),
      use(one.name, "Use", "", `Use ${labelled(one.name)}`),
    ]);
    if (tuned) {
      rows.push([[h("span", { class: "swatch", data: { kind: "tuned" } }), h("b", null, "tuned"), h("div", { class: "small" }, "measured on queries that had no part in the choice")],
        range(tuned.mean, "tuned"), "", ...result.measures.slice(1).map(() => ""), "", ""]);
    }
    const report = `report/${encodeURIComponent(app.index)}/${encodeURIComponent(result.report)}`;
    const frame = h("details", { class: "card report", on: { toggle: open } }, h("summary", null, h("b", null, "Report"), h("span", { class: "small" }, " with charts, and queries that are worth reading")));
    nodes.result.replaceChildren(
      h("section", { class: "card advice" },
        h("h2", null, labelled(tuned ? `Advice: ${tuned.recommended}` : `Best: ${best.name}`)),
        h("p", null, labelled(tuned ? tuned.recommendation : `${best.name} has the highest ${measure}, ${best.means[measure].mean.toFixed(3)}.`)),
        result.problems.length ? h("ul", { class: "problems" }, result.problems.map((one) => h("li", { class: "note" }, labelled(one)))) : null,
        systems.length > 1 ? h("div", { class: "actions" }, use(tuned ? null : best.name, "Use this", "main"),
          found.use_refused ? h("span", { class: "note" }, `“Use this” changes all searches of this service. ${found.use_refused}`) : null) : null),
      h("section", { class: "card" },
        h("h2", null, `${result.queries.toLocaleString("en")} judged queries, ${result.judgements.toLocaleString("en")} judgements`),
        table(["System", `${measure}, with its 95 % interval`, "More than its best retriever", ...result.measures.slice(1), "Time", ""], rows),
        h("p", { class: "small" }, result.measures.map((name) => {
          const [kind, depth] = name.split("@");
          return MEASURES[kind] ? `${name}: ${MEASURES[kind]}${depth ? `, among the first ${depth}` : ""}. ` : "";
        }), "All are from 0 to 1, and 1 is best. Time is the median of one query.")),
      frame);

    function open() {
      if (!frame.open || frame.querySelector("iframe")) return;
      frame.append(h("p", { class: "small" }, h("a", { href: report, target: "_blank", rel: "noopener" }, "Open it in a new tab")),
        h("iframe", { src: report, title: "Report of the comparison", sandbox: "allow-scripts" }));
    }
  }

  function explained({ name, kind, description }) {
    const text = EXPLAINED[name.split("+")[0]];
    if (!text) return labelled(description);
    return kind === "reranked" ? `${text} Then the reranker orders the first documents.` : text;
  }

  // The mean as a dot and its interval as a line, between 0 and 1
  function range({ mean, low, high }, kind) {
    const line = h("i", { class: "range-line" }), dot = h("i", { class: "range-dot" });
    line.style.left = `${low * 100}%`;
    line.style.width = `${(high - low) * 100}%`;
    dot.style.left = `${mean * 100}%`;
    return h("div", { class: "range", data: { kind } }, h("b", null, mean.toFixed(3)), h("span", { class: "range-track", "aria-hidden": "true" }, line, dot),
      h("span", { class: "small" }, `${low.toFixed(2)} to ${high.toFixed(2)}`));
  }

  function gain({ gain, best }) {
    if (!gain.wins && !gain.losses) return [`same as ${best}`];
    const sign = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
    return [h("b", { class: gain.significant ? (gain.mean > 0 ? "better" : "worse") : "" }, sign(gain.mean)), h("div", { class: "small" }, `${sign(gain.low)} to ${sign(gain.high)}`),
      h("div", { class: "small" }, `${best}; ${gain.wins} better, ${gain.losses} worse${gain.significant ? "" : "; may be chance"}`)];
  }

  function use(system, label, class_ = "", name = null) {
    return h("button", { type: "button", class: class_, "aria-label": name, disabled: Boolean(found.use_refused), on: { click: () => change(() => app.api(at("use"), { system })) } }, label);
  }

  async function change(request) {
    try {
      const { fusion } = await request();
      app.about.fusion = { ...app.about.fusion, shown: fusion };
      await again();
      app.say(found.in_use ? `In use: ${inWords()}` : "The index uses its own fusion.");
      scrollTo({ top: 0 });
    } catch (error) {
      app.fail(error);
    }
  }
}
