// A filter on metadata: conditions on the fields of the index, or the raw JSON of the filter language.

import { h } from "./dom.js";

const OPERATORS = {
  number: [["$eq", "="], ["$ne", "≠"], ["$gte", "≥"], ["$lte", "≤"], ["$gt", ">"], ["$lt", "<"], ["$exists", "is there"]],
  text: [["$eq", "is"], ["$ne", "is not"], ["$contains", "contains"], ["$gte", "≥"], ["$lte", "≤"], ["$exists", "is there"]],
  boolean: [["$eq", "is"], ["$exists", "is there"]],
  mixed: [["$eq", "is"], ["$ne", "is not"], ["$contains", "contains"], ["$exists", "is there"]],
};

// The filter of an address as an object. null for none, and undefined if the text is not a JSON object.
export function parsed(text) {
  if (!text?.trim()) return null;
  try {
    const found = JSON.parse(text);
    return found && typeof found === "object" && !Array.isArray(found) ? found : undefined;
  } catch {
    return undefined;
  }
}

// The conditions [field, operator, value] of a filter that the builder can show, and `others`, filters that it cannot show.
function partsOf(filter, fields) {
  const conditions = [], others = [];
  for (const [path, wanted] of Object.entries(filter ?? {})) {
    if (path === "$and" && Array.isArray(wanted)) {
      for (const one of wanted) {
        const inner = one && typeof one === "object" ? partsOf(one, fields) : { conditions: [], others: [one] };
        conditions.push(...inner.conditions);
        others.push(...inner.others);
      }
      continue;
    }
    const kind = fields.find((one) => one.path === path)?.kind;
    const operators = wanted && typeof wanted === "object" && !Array.isArray(wanted) ? Object.entries(wanted) : [["$eq", wanted]];
    const shown = ([operator, value]) => OPERATORS[kind]?.some(([name]) => name === operator) && value !== "" && value !== null && typeof value !== "object";
    if (operators.length && operators.every(shown)) conditions.push(...operators.map(([operator, value]) => [path, operator, value]));
    else others.push({ [path]: wanted });
  }
  return { conditions, others };
}

function filterOf({ conditions, others }) {
  const filter = {}, more = [...others]; // an object has each operator once, so further conditions go into $and
  for (const [path, operator, value] of conditions) {
    if (value === "" || value == null) continue;
    if (Object.hasOwn(filter, path) && operator in filter[path]) more.push({ [path]: { [operator]: value } });
    else filter[path] = { ...filter[path], [operator]: value };
  }
  for (const [path, wanted] of Object.entries(filter)) {
    if (Object.keys(wanted).join() === "$eq") filter[path] = wanted.$eq;
  }
  if (more.length) filter.$and = more;
  return Object.keys(filter).length ? filter : null;
}

// A panel with both. `changed` gets the text of the filter, or null. Returns an element with the method `show(text)`.
export function filterPanel(app, text, changed) {
  const fields = app.about.fields;
  const rows = h("div", { class: "conditions" });
  const raw = h("textarea", { rows: 3, spellcheck: "false", "aria-label": "Filter as JSON", placeholder: '{"year": {"$gte": 2020}}' });
  const note = h("p", { class: "small problem", role: "status" });
  let conditions = [], others = [];

  const give = () => {
    const filter = filterOf({ conditions, others });
    raw.value = filter ? JSON.stringify(filter) : "";
    note.textContent = "";
    changed(raw.value || null);
  };
  raw.addEventListener("input", () => {
    const filter = parsed(raw.value);
    note.textContent = filter === undefined ? "This is not a JSON object yet." : "";
    if (filter === undefined) return;
    ({ conditions, others } = partsOf(filter, fields));
    draw();
    changed(raw.value.trim() || null);
  });

  function draw() {
    rows.replaceChildren(...conditions.map((condition, place) => row(condition, place)));
  }

  function row(condition, place) {
    const field = fields.find((one) => one.path === condition[0]);
    const values = h("datalist", { id: `values-${place}` }, field.values.map((value) => h("option", { value })));
    const choose = (part, value) => { condition[part] = value; give(); };
    const path = h("select", { "aria-label": "Field", on: { change: (event) => {
      conditions[place] = [event.target.value, "$eq", ""];
      draw();
      give();
      rows.children[place].querySelector("select").focus();
    } } }, fields.map((one) => h("option", { value: one.path, selected: one.path === condition[0] }, one.path)));
    const operator = h("select", { "aria-label": "Condition", on: { change: (event) => {
      const exists = event.target.value === "$exists";
      if (exists || condition[1] === "$exists") condition[2] = exists ? true : "";
      choose(1, event.target.value);
      draw();
      rows.children[place].querySelectorAll("select")[1].focus();
    } } }, OPERATORS[field.kind].map(([name, label]) => h("option", { value: name, selected: name === condition[1] }, label)));
    const logical = field.kind === "boolean" || condition[1] === "$exists";
    const value = logical
      ? h("select", { "aria-label": "Value", on: { change: (event) => choose(2, event.target.value === "" ? "" : event.target.value === "true") } },
        [["", ""], ["true", "yes"], ["false", "no"]].map(([one, label]) => h("option", { value: one, selected: String(condition[2]) === one }, label)))
      : h("input", {
        "aria-label": "Value", type: field.kind === "number" ? "number" : "text", step: "any", list: field.values.length ? values.id : null,
        placeholder: field.kind === "number" ? `${field.low} to ${field.high}` : "value",
        props: { value: condition[2] ?? "" },
        on: { input: (event) => choose(2, field.kind === "number" && event.target.value !== "" ? Number(event.target.value) : event.target.value) },
      });
    const remove = h("button", { type: "button", class: "quiet icon", "aria-label": `Remove the condition on ${condition[0]}`, on: { click: () => {
      conditions.splice(place, 1);
      draw();
      give();
      add.focus();
    } } }, "✕");
    return h("div", { class: "condition" }, path, operator, value, remove, values);
  }

  const add = h("button", { type: "button", class: "quiet", disabled: !fields.length, on: { click: () => {
    conditions.push([fields[0].path, "$eq", ""]);
    draw();
    rows.lastElementChild.querySelector("select").focus();
  } } }, "+ Condition");

  const panel = h("fieldset", { class: "filter" }, h("legend", null, "Filter"),
    fields.length ? null : h("p", { class: "small" }, "The documents have no metadata."), rows, add,
    h("details", null, h("summary", null, "As JSON"), raw, note));
  panel.show = (given) => {
    const filter = parsed(given);
    raw.value = given ?? "";
    ({ conditions, others } = partsOf(filter, fields));
    if (filter === undefined || others.length) panel.querySelector("details").open = true;
    note.textContent = filter === undefined ? "This is not a JSON object yet." : "";
    draw();
  };
  panel.show(text);
  return panel;
}
