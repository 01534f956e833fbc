// The shell of the workbench: tabs, the index, the address, requests, the theme and the keys.
//
// A tab is a module with the function `mount(root, app)`. Add the tab to TABS. `root` is an empty element that belongs to
// the tab. `mount` may be asynchronous. It may return an object with any of these parts:
//
//   keys      pairs of a key and what it does, such as [["Enter", "Explain the document"]], for the list of keys
//   key       function of a keydown event outside of fields and dialogs. It returns true if it used the key.
//   unmount   function that is called before the tab is left: stop timers and requests there
//
// A tab is mounted again if the user goes back or forward, edits the address, or chooses another index.
//
// What `app` has:
//
//   app.index            name of the chosen index
//   app.about            what GET workbench/INDEX says about it: documents, retrievers, fusion, reranker, fields
//   app.indexes          names of all indexes
//   app.api(path, body, { method, signal, quiet })
//                        sends JSON to an address below the page, such as `workbench/${index}/look`, and returns the
//                        JSON of the answer, or its bytes with `blob`. Without a body it is a GET. It asks for a token if
//                        the service wants one. It throws an Error with a sentence for the user as its message, and with
//                        `status`. `quiet` leaves the message of an earlier error in its place.
//   app.at(...names)     an address from names, each encoded: app.at("workbench", app.index, "look")
//   app.fail(error)      shows the message of an error above the tab, until the next request. Aborted requests are left
//                        out.
//   app.get(name)        value of the state that is in the address, or null
//   app.set({ name: value }, { push })
//                        changes the state in the address. null removes a value. `push` makes a step for the back button.
//   app.link(tab, state) address of a tab with a state, for links: `#/look?index=...`
//   app.say(text)        tells screen readers what has changed
//   app.ask(dialog)      opens a <dialog> as a modal one, removes it when it is closed, and gives the focus back

import { h } from "./dom.js";

const TABS = { look: "Look", compare: "Compare", judge: "Judge", choose: "Choose" };

const KEYS = [
  ["/", "Go to the query"],
  ["?", "Show the keys"],
  ["Esc", "Close a dialog, or leave a field or a ranking"],
];

const byId = (id) => document.getElementById(id);
const root = document.documentElement;

let mounted = null; // what the tab's mount returned
let params = new URLSearchParams();
let turns = 0; // how often the address has changed
const left = new Map(); // the state that Look and Compare have, by index and tab, so that their links lead back to it

const app = {
  index: "",
  about: null,
  indexes: [],
  api,
  fail,
  ask,
  at: (...names) => names.map(encodeURIComponent).join("/"),
  get: (name) => params.get(name),
  set(state, { push = false } = {}) {
    change(params, state);
    const address = addressOf(tabOf(location.hash), params);
    if (address === location.hash) return;
    history[push ? "pushState" : "replaceState"](null, "", address);
    drawTabs();
  },
  link: (tab, state = {}) => addressOf(tab, change(new URLSearchParams({ index: app.index }), state)),
  say(text) { byId("status").textContent = text; },
};

start();

async function start() {
  theme();
  byId("keys").addEventListener("click", showKeys);
  document.querySelector(".skip").addEventListener("click", (event) => { // the address is that of the tab
    event.preventDefault();
    byId("main").focus();
  });
  byId("index").addEventListener("change", (event) => { location.hash = addressOf(tabOf(location.hash), { index: event.target.value }); });
  document.addEventListener("keydown", pressed);
  try {
    app.indexes = (await api("workbench")).indexes;
  } catch (error) {
    fail(error);
    return;
  }
  byId("index").replaceChildren(...app.indexes.map((name) => h("option", { value: name }, name)));
  addEventListener("hashchange", () => { if (location.hash === "" || location.hash.startsWith("#/")) route(); });
  await route();
}

// The address

function tabOf(hash) {
  const name = hash.slice(2).split("?")[0];
  return Object.hasOwn(TABS, name) ? name : "look";
}

function addressOf(tab, state) {
  const query = new URLSearchParams(state).toString();
  return query ? `#/${tab}?${query}` : `#/${tab}`;
}

function change(found, state) {
  for (const [name, value] of Object.entries(state)) value == null || value === "" ? found.delete(name) : found.set(name, value);
  return found;
}

// Look and Compare share the settings A and B.
function drawTabs() {
  const tab = tabOf(location.hash), state = Object.fromEntries(params), shares = (name) => name === "look" || name === "compare";
  if (shares(tab)) left.set(`${app.index}/${tab}`, state);
  const shared = shares(tab) ? { a: state.a ?? null, ...(state.b ? { b: state.b } : {}) } : {};
  byId("tabs").replaceChildren(...Object.entries(TABS).map(([name, label]) => h("a", {
    href: app.link(name, shares(name) ? { ...left.get(`${app.index}/${name}`), ...shared } : {}), "aria-current": name === tab ? "page" : null,
  }, label)));
}

async function route() {
  const turn = ++turns;
  const tab = tabOf(location.hash);
  params = new URLSearchParams(location.hash.split("?").slice(1).join("?"));
  const wanted = params.get("index");
  const index = app.indexes.includes(wanted) ? wanted : app.indexes[0];
  mounted?.unmount?.();
  mounted = null;
  byId("problem").hidden = true;
  document.querySelectorAll("dialog[open]").forEach((one) => one.close());
  if (!index) return fail(new Error("The service has no index."));
  if (wanted && wanted !== index) fail(new Error(`There is no index ${JSON.stringify(wanted)}, so the page shows ${JSON.stringify(index)}.`));
  byId("index").value = index;
  try {
    const about = await api(app.at("workbench", index), undefined, { quiet: true });
    const module = await import(`./${tab}.js`);
    if (turn !== turns) return; // the user has gone on
    app.about = about;
    app.index = index;
    params.set("index", index);
    drawTabs();
    document.title = `${TABS[tab]} · ${index} · hybridsearch`;
    const place = h("div", { class: `tab ${tab}` });
    byId("main").replaceChildren(place);
    mounted = (await module.mount(place, app)) ?? null;
  } catch (error) {
    if (turn !== turns) return;
    if (app.index !== index) byId("main").replaceChildren(); // what is there is of another index
    fail(error);
  }
}

// Requests

async function api(path, body, { method = body === undefined ? "GET" : "POST", signal, quiet = false, blob = false } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const token = keptToken();
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { method, signal, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
  if (answer.status === 401 && (await askToken(Boolean(token)))) return api(path, body, { method, signal, quiet, blob });
  if (blob && answer.ok) return answer.blob();
  const text = await answer.text();
  const found = text && /json/.test(answer.headers.get("Content-Type") ?? "") ? JSON.parse(text, plain) : null;
  if (!answer.ok) throw Object.assign(new Error(sentence(found, answer)), { status: answer.status, problem: found });
  if (!quiet) byId("problem").hidden = true;
  return found;
}

// Objects without a prototype, because an id may be "constructor".
function plain(_, value) {
  return value && typeof value === "object" && !Array.isArray(value) ? Object.assign(Object.create(null), value) : value;
}

// The sentence of a problem document (RFC 9457), or one about the status.
function sentence(found, answer) {
  if (typeof found?.detail === "string") return found.detail;
  if (Array.isArray(found?.detail)) return found.detail.map((one) => `${(one.loc ?? []).slice(1).join(".")}: ${one.msg}.`).join(" ");
  if (answer.status === 429) return "The service is busy. Try again in a moment.";
  return found?.title ?? `The service refused the request (${answer.status}).`;
}

// The token is kept until the tab is closed. If storage is off, it is kept until the page is left.
let kept = null;

function keptToken() {
  try {
    return kept ?? sessionStorage.getItem("hybridsearch-token");
  } catch {
    return null;
  }
}

function keepToken(token) {
  kept = token;
  try { sessionStorage.setItem("hybridsearch-token", token); } catch { /* storage is off */ }
}

let asked = null; // one dialog for all requests that wait for a token

function askToken(refused) {
  asked ??= new Promise((resolve) => {
    const field = h("input", { type: "password", id: "token", autocomplete: "off", required: true,
      pattern: "\\s*[!-~]+\\s*", title: "A token has letters, digits and signs of ASCII, and no blanks." });
    const form = h("form", { method: "dialog" },
      h("h2", { id: "token-title" }, "This service needs a token"),
      h("p", { class: "muted" }, refused ? "The service does not know this token. " : "", "The page keeps it until the tab is closed."),
      h("label", { for: "token" }, "Token"), field,
      h("div", { class: "actions" }, h("button", { class: "main", value: "ok" }, "Continue")));
    const dialog = h("dialog", { class: "small-dialog", "aria-labelledby": "token-title" }, form);
    dialog.addEventListener("close", () => {
      const token = dialog.returnValue === "ok" && field.value.trim();
      if (token) keepToken(token);
      asked = null;
      resolve(Boolean(token));
    });
    ask(dialog);
  });
  return asked;
}

function fail(error) {
  if (error?.name === "AbortError") return;
  byId("problem").textContent = error?.message ?? String(error);
  byId("problem").hidden = false;
}

// Dialogs and keys

function ask(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside the dialog
  dialog.addEventListener("close", () => dialog.remove()); // the browser gives the focus back, before this event
  dialog.showModal();
  return dialog;
}

function showKeys() {
  const rows = [...(mounted?.keys ?? []), ...KEYS];
  ask(h("dialog", { class: "small-dialog", "aria-labelledby": "keys-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "keys-title" }, "Keys"),
      h("dl", { class: "keys" }, rows.map(([keys, does]) => [
        h("dt", null, keys.split(" ").map((key) => [h("kbd", null, key), " "])), h("dd", null, does)])),
      h("div", { class: "actions" }, h("button", { class: "main" }, "Close")))));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const field = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  if (event.key === "?") showKeys();
  else if (event.key === "/") {
    const query = document.querySelector("main [type=search]");
    if (!query) return;
    query.focus();
    query.select();
  } else if (!mounted?.key?.(event)) return;
  event.preventDefault();
}

// Light and dark, as in the report of `compare`

function theme() {
  const button = byId("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  try {
    const kept = localStorage.getItem("hybridsearch-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* storage is off */ }
  const other = () => ((root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark");
  const label = () => {
    const text = other() === "dark" ? "Dark theme" : "Light theme";
    button.setAttribute("aria-label", text);
    button.title = text;
    button.textContent = other() === "dark" ? "☾" : "☀";
  };
  dark.addEventListener("change", label);
  button.addEventListener("click", () => {
    root.dataset.theme = other();
    try { localStorage.setItem("hybridsearch-theme", root.dataset.theme); } catch { /* storage is off */ }
    label();
  });
  label();
}
