// Which grades count, if judges differ: the controls that Judge and Choose share.

import { h } from "./dom.js";

export const RULES = {
  "lower-median": "the middle grade, or the lower of two",
  majority: "the most frequent grade, or the lowest of several",
};

// judges: names and what they are, such as { anna: "", minilm: "CrossEncoderReranker(...)" }
// Returns { node, value }. `value()` is the body that the service takes.
export function settlement(judges, { finished = {} } = {}) {
  const names = Object.keys(judges);
  const people = names.filter((name) => !judges[name]);
  const counted = people.length ? people : names;
  const boxes = names.map((name) => h("input", { type: "checkbox", value: name, checked: counted.includes(name) }));
  const rule = h("select", { id: "rule" }, Object.entries(RULES).map(([value, label]) => h("option", { value }, label)));
  const decider = h("select", { id: "decider" }, h("option", { value: "" }, "Nobody"), names.map((name) => h("option", { value: name }, name)));
  const differ = h("div", { class: "settle-rules", hidden: names.length < 2 },
    h("label", { for: "rule" }, "If grades differ, take"), rule,
    h("label", { for: "decider" }, "Judge with the last word"), decider);
  const node = h("fieldset", { class: "settle" },
    h("legend", null, "Whose grades count"),
    names.map((name, place) => h("label", { class: "check" }, boxes[place], h("span", null, name, " ", h("span", { class: "small" },
      [judges[name] ? "program" : "", name in finished ? `${finished[name].toLocaleString("en")} queries finished` : ""].filter(Boolean).join(", "))))),
    differ);
  return {
    node,
    value: () => ({
      judges: boxes.filter((box) => box.checked).map((box) => box.value),
      rule: rule.value,
      decider: decider.value || null,
    }),
  };
}
