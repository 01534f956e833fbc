// Configurations: the settings of a search that the page can change. They have the form that the service takes:
// { fusion: { type, k, normalization, weights }, candidates, rerank }.

import { h } from "./dom.js";

const KINDS = [["rrf", "RRF"], ["minmax", "min-max"], ["zscore", "z-score"], ["none", "none"], ["adaptive", "adaptive"]];
export const EXPLAINED = {
  rrf: "Reciprocal rank fusion: only ranks count.",
  minmax: "The scores of each retriever are scaled to 0 to 1.",
  zscore: "The scores of each retriever are scaled to mean 0 and deviation 1.",
  none: "The scores are not scaled.",
  adaptive: "Min-max with other weights for each query. The service merges the rankings.",
};

// The settings of the index.
export function own(app) {
  const { shown, ...fusion } = app.about.fusion;
  return { fusion, candidates: app.about.candidates, rerank: Boolean(app.about.reranker) };
}

// The configuration that the address holds under a name ("a" or "b"), or null if it holds none.
export function read(app, name) {
  try {
    const found = JSON.parse(app.get(name));
    if (!found || typeof found !== "object") return null;
    const mine = own(app);
    return { fusion: found.fusion ?? mine.fusion, candidates: found.candidates ?? mine.candidates, rerank: (found.rerank ?? mine.rerank) && mine.rerank };
  } catch {
    return null;
  }
}

// The configuration as the service takes it. A fusion that only the index knows is left to the index.
export function sent(configuration) {
  const { fusion } = configuration;
  const known = fusion.type === "judged" || KINDS.some(([kind]) => kind === kindOf(fusion));
  return { ...configuration, fusion: known ? fusion : null };
}

// The text that the address holds. null for the settings of the index.
export function written(app, configuration) {
  const text = JSON.stringify(configuration);
  return text === JSON.stringify(own(app)) ? null : text;
}

export const weightOf = (configuration, name) => configuration.fusion.weights?.[name] ?? 1;

const kindOf = (fusion) => (fusion.type === "score" ? fusion.normalization : fusion.type);
const nameOf = (fusion) => KINDS.find(([kind]) => kind === kindOf(fusion))?.[1] ?? fusion.type;

// A text of Python, such as the name of a system, with the labels of this page.
export const labelled = (text) => text.replace(/\b(rrf|minmax|zscore)\b/g, (kind) => KINDS.find(([one]) => one === kind)[1]);

// One line, such as "RRF, k 60 · bm25 1, dense 0.5 · 100 candidates · reranked".
export function described(app, configuration) {
  const { fusion, candidates, rerank } = configuration;
  const names = Object.keys(app.about.retrievers);
  const weights = names.map((name) => weightOf(configuration, name));
  const used = names.filter((_, place) => weights[place] > 0);
  const fused = [
    fusion.type === "rrf" ? `RRF, k ${fusion.k}` : nameOf(fusion),
    new Set(weights).size > 1 ? names.map((name, place) => `${name} ${weights[place]}`).join(", ") : "equal weights",
  ];
  return [
    ...(used.length === 1 && names.length > 1 ? [`${used[0]} alone`] : fused),
    `${candidates} candidates`,
    app.about.reranker ? (rerank ? "reranked" : "not reranked") : null,
  ].filter(Boolean).join(" · ");
}

// Controls for a configuration. `changed` gets the new one at each move of a slider.
export function controls(app, configuration, changed, { most = app.about.candidates } = {}) {
  let now = structuredClone(configuration);
  const names = Object.keys(app.about.retrievers);
  const prefix = `c${Math.random().toString(36).slice(2, 8)}`;
  const update = (part) => {
    now = { ...now, ...part };
    changed(structuredClone(now));
  };
  const fuse = (part) => update({ fusion: { ...now.fusion, ...part } });

  const known = KINDS.some(([kind]) => kind === kindOf(now.fusion));
  const explained = h("p", { class: "small" }, EXPLAINED[kindOf(now.fusion)] ?? "The service merges the rankings.");
  const k = slider({ label: "k", value: now.fusion.k ?? 60, min: 0, max: 200, step: 1, on: (value) => fuse({ k: value }) });
  k.hidden = now.fusion.type !== "rrf";
  const choose = (kind) => {
    const weights = now.fusion.weights ?? null;
    const fusion = kind === "rrf" ? { type: "rrf", weights, k: k.value() }
      : kind === "adaptive" ? { type: "adaptive", weights } : { type: "score", weights, normalization: kind };
    k.hidden = kind !== "rrf";
    explained.textContent = EXPLAINED[kind];
    update({ fusion });
  };
  const kinds = KINDS.map(([kind, label]) => h("label", { class: "choice" },
    h("input", { type: "radio", name: `${prefix}-kind`, value: kind, checked: kind === kindOf(now.fusion), on: { change: () => choose(kind) } }),
    h("span", null, label)));

  const weights = names.map((name, place) => slider({
    label: name, value: weightOf(now, name), min: 0, max: Math.max(3, Math.ceil(weightOf(now, name))), step: 0.05, swatch: place,
    on: (value) => fuse({ weights: { ...Object.fromEntries(names.map((one) => [one, weightOf(now, one)])), [name]: value } }),
  }));
  const depth = slider({
    label: "Candidates", value: now.candidates, min: 1, max: Math.max(most, now.candidates), step: 1,
    on: (value) => update({ candidates: value }),
  });
  const reranker = app.about.reranker && h("label", { class: "check" },
    h("input", { type: "checkbox", checked: now.rerank, on: { change: (event) => update({ rerank: event.target.checked }) } }),
    h("span", null, "Rerank the first ", String(app.about.reranker.top_k)));

  return h("div", { class: "controls" },
    h("fieldset", null, h("legend", null, "Fusion"),
      known ? null : h("p", { class: "small" }, `The index uses ${app.about.fusion.shown}.`),
      h("div", { class: "choices" }, kinds), explained, k),
    h("fieldset", null, h("legend", null, names.length > 1 ? "Weights" : "Weight"), weights),
    h("fieldset", null, h("legend", null, "Depth"), depth, reranker));
}

function slider({ label, value, min, max, step, swatch, on }) {
  const id = `s${Math.random().toString(36).slice(2, 8)}`;
  const range = h("input", { type: "range", id, min, max, step, value });
  const field = h("input", { type: "number", min, max: null, step: "any", value, "aria-label": `${label}, exact` });
  let used = value;
  const give = (text, from) => {
    const given = Number(text);
    if (text === "" || !Number.isFinite(given) || given < min) return;
    used = step === 1 && Number.isInteger(min) && label !== "k" ? Math.round(given) : given;
    for (const other of [range, field]) if (other !== from) other.value = given;
    on(used);
  };
  range.addEventListener("input", () => give(range.value, range));
  field.addEventListener("input", () => give(field.value, field));
  field.addEventListener("change", () => { field.value = used; }); // a number that is not allowed is not used
  const made = h("div", { class: "slider" },
    h("label", { for: id }, swatch === undefined ? null : h("i", { class: `swatch r${swatch % 6}` }), label), field, range);
  made.value = () => used;
  return made;
}
