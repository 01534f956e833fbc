// Nodes of the page. Texts of users become text nodes here, and never HTML.

const SVG = "http://www.w3.org/2000/svg";

// h("button", { class: "quiet", on: { click: act }, "aria-pressed": true }, "Text", node, [more])
// Attributes that are null or false are left out. `on` has listeners, `data` has data attributes, and `props` has
// properties such as `value`.
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

// The same for SVG.
export function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "on") Object.entries(value).forEach(([event, listener]) => node.addEventListener(event, listener));
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "props") Object.assign(node, value);
    else if (value != null && (value !== false || name.startsWith("aria-"))) {
      node.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

// Parts of a line, each a text and whether it is marked, as the service sends them.
export function marked(parts) {
  return parts.map(([text, mark]) => (mark ? h("mark", null, text) : text));
}

export const number = (value, digits = 4) => (value === 0 ? "0" : Number(value).toPrecision(digits));
export const count = (value, one, many = `${one}s`) => `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
export const milliseconds = (seconds) => {
  const ms = seconds * 1000;
  return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en")} ms`;
};
