// The progress of work that takes longer than a request.

import { h } from "./dom.js";

const EVERY = 400; // milliseconds

// Shows the running job of the index in `place`, until it ends. Returns its last status.
// `signal` stops watching, and the job goes on.
export async function watch(app, place, status, signal) {
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const text = h("span", { class: "small" });
  const cancel = h("button", { type: "button", on: { click: stop } }, "Cancel");
  place.replaceChildren(h("div", { class: "job card", role: "group", "aria-label": "Running job" }, h("div", { class: "job-bar" }, bar, text), cancel));
  let away = false;
  while (status.state === "running") {
    if (status.total) {
      bar.value = status.done / status.total;
      text.textContent = `${status.stage}: ${status.done.toLocaleString("en")} of ${status.total.toLocaleString("en")}`;
    } else {
      bar.removeAttribute("value");
      text.textContent = status.stage ?? "Starting";
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY));
    if (signal?.aborted) return status;
    try {
      status = await app.api(app.at("workbench", app.index, "job"), undefined, { signal, quiet: !away });
      away = false;
    } catch (error) { // the job may go on, so ask again
      if (signal?.aborted) return status;
      app.fail(error);
      away = true;
    }
  }
  place.replaceChildren();
  const ended = { failed: status.error, cancelled: "The job was cancelled.", interrupted: "The service ended before the job did. Start it again." }[status.state];
  if (ended) app.fail(new Error(ended));
  else app.say("Done.");
  return status;

  async function stop() {
    cancel.disabled = true;
    try {
      await app.api(app.at("workbench", app.index, "job", "cancel"), {});
    } catch (error) {
      app.fail(error);
      cancel.disabled = false;
    }
  }
}

// If the service keeps no judgements, the tab says how to change this.
export function refused(root, error, index) {
  root.replaceChildren(h("div", { class: "card empty" },
    h("h1", null, "Nothing can be judged here yet"),
    h("p", null, error.message),
    h("pre", { tabindex: 0 }, h("code", null, `hybridsearch serve ${index} --judgements judgements --allow-write`)),
    h("p", { class: "small" }, "The folder judgements then keeps all grades. --allow-write lets Choose put a fusion into use.")));
}
