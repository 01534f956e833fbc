// Judge: one document at a time, one key for each grade. A judge sees no ranks, no scores and no names of systems.

import { labelled } from "./config.js";
import { count, h } from "./dom.js";
import { refused, watch } from "./job.js";
import { ENDINGS, linesOf, queriesOf } from "./queries.js";
import { settlement } from "./settle.js";

export const GRADES = ["Not relevant", "Touches the question", "Answers a part", "Answers it"];
const VIEWS = { judge: "Grade", agreement: "Agreement and export", pools: "Queries and systems" };
const EXAMPLE = "motor too hot\nhow far can I ride in winter\nE13";

export async function mount(root, app) {
  const at = (...names) => app.at("workbench", app.index, "judging", ...names);
  const leaving = new AbortController();
  let state;
  try {
    state = await app.api(at());
  } catch (error) {
    if (error.status !== 404) throw error;
    refused(root, error, app.index);
    return {};
  }
  const place = h("div", { class: "judging" });
  const running = h("div");
  const views = h("div", { class: "switch", role: "group", "aria-label": "View" });
  root.append(h("div", { class: "judging-head" }, h("h1", null, "Judge"), views), running, place);
  let changing = Promise.resolve();
  let shown = null; // the view: it may have `key`, and `saved` to wait for its grades
  await show(app.get("view") ?? (state.queries.length ? "judge" : "pools"));
  if (state.job.state === "running") follow(state.job);

  return {
    keys: [["0 1 2 3", "Grade the document"], ["u", "Undo"], ["s", "Skip the document"], ["t", "Show or hide the full text"],
      ["n", "Next query"], ["p", "Previous query"]],
    key: (event) => shown?.key?.(event) ?? false,
    unmount: () => leaving.abort(),
  };

  async function show(view) {
    const wanted = Object.hasOwn(VIEWS, view) && (view !== "judge" || state.queries.length) ? view : "pools";
    app.set({ view: wanted === "judge" ? null : wanted });
    views.replaceChildren(...Object.entries(VIEWS).map(([name, label]) => h("button", {
      type: "button", "aria-pressed": name === wanted, disabled: name !== "pools" && !state.queries.length, on: { click: () => change(name) },
    }, label)));
    shown = await { judge: judgeView, agreement: agreementView, pools: poolsView }[wanted]();
  }

  // Views follow one after the other, so that one that comes late does not take the place of the last one.
  function change(view) {
    changing = changing.then(async () => {
      await shown?.saved?.();
      state = await app.api(at());
      await show(view);
    }).catch(app.fail);
    return changing;
  }

  async function follow(job) {
    const ended = await watch(app, running, job, leaving.signal);
    if (leaving.signal.aborted || ended.state !== "done") return;
    if (ended.name === "pool") await change("judge");
    if (ended.name === "program" && app.get("view")) await change("agreement"); // unless a person is grading
  }

  // Queries and systems

  function poolsView() {
    const queries = h("textarea", { id: "queries", rows: 8, placeholder: EXAMPLE, required: true, "aria-describedby": "queries-help" });
    const file = h("input", { type: "file", class: "unseen", tabindex: -1, accept: ENDINGS, "aria-label": "File of queries", on: { change: read } });
    const boxes = state.possible.map((name) => h("input", { type: "checkbox", value: name, checked: true }));
    const depth = h("input", { type: "number", id: "depth", min: 1, max: 100, value: 10 });
    const known = state.queries.length;
    const sets = h("div", { class: "actions offers" });
    offer();
    const form = h("form", { class: "pools card", on: { submit: start } },
      h("h2", null, known ? "Add queries or systems" : "What should be judged?"),
      known ? h("p", { class: "muted" }, `There are ${count(known, "query", "queries")} with ${count(state.queries.reduce((sum, one) => sum + one.documents, 0), "document")}, from ${state.systems.map(labelled).join(", ")}. Grades stay when you add more.`)
        : h("p", { class: "muted" }, "Take 25 real queries of your users or more: codes, single words, and whole questions."),
      h("div", { class: "field" }, h("label", { for: "queries" }, "Queries, one in each line"), queries,
        h("p", { class: "small", id: "queries-help" }, "A line can also have an id, a tab and the text. You can also choose a file: text, TSV, CSV, JSON lines, TREC topics, or a log of the service."),
        h("div", { class: "actions" }, h("button", { type: "button", on: { click: () => file.click() } }, "Open a file"), file, sets)),
      h("fieldset", { class: "field" }, h("legend", null, "Systems whose first documents are judged"),
        h("div", { class: "checks" }, state.possible.map((name, number) => h("label", { class: "check" }, boxes[number], labelled(name))))),
      h("div", { class: "field numbers" }, h("label", { for: "depth" }, "First documents of each system"), depth),
      h("p", { class: "small" }, "Each document is shown once. The order is shuffled, so it shows neither ranks nor systems."),
      h("div", { class: "actions" }, h("button", { class: "main", disabled: !state.may_write }, known ? "Add to the pools" : "Make the pools")),
      state.may_write ? null : h("p", { class: "note" }, "This token may read, but not write."));
    place.replaceChildren(form);
    return {};

    async function offer() {
      const found = await app.api(app.at("workbench", app.index, "queries"), undefined, { quiet: true }).catch(() => ({}));
      sets.replaceChildren(...Object.entries(found).map(([name, size]) => h("button", { type: "button", class: "quiet", on: { click: () => take(name) } },
        `Take ${name} (${count(size, "query", "queries")})`)));
    }

    async function take(name) {
      try {
        const found = await app.api(app.at("workbench", app.index, "queries", name));
        queries.value = linesOf(found, { ids: true });
      } catch (error) {
        app.fail(error);
      }
    }

    async function read() {
      const [chosen] = file.files;
      if (!chosen) return;
      file.value = ""; // so that the same file can be opened again
      try {
        queries.value = linesOf(await queriesOf(app, chosen), { ids: true });
      } catch (error) {
        app.fail(error);
      }
    }

    async function start(event) {
      event.preventDefault();
      const body = {
        queries: queries.value, systems: boxes.filter((box) => box.checked).map((box) => box.value),
        depth: depth.valueAsNumber,
      };
      if (!body.systems.length) return app.fail(new Error("Choose at least one system."));
      try {
        follow(await app.api(at("pool"), body));
      } catch (error) {
        app.fail(error);
      }
    }
  }

  // One document at a time

  async function judgeView() {
    let name = remembered();
    if (!name) return askName();
    let left, query, current, moving = false, unsaved = 0, busy = Promise.resolve(), open = false;
    const whole = new Map(); // texts of documents
    const pools = new Map(); // documents of each query, as they were loaded
    const ids = state.queries.map((one) => one.id);
    const nodes = {
      who: h("div", { class: "who" }), bar: h("progress", { class: "done", max: 1, value: 0, "aria-label": "Judged documents" }), counts: h("span", { class: "small" }), saved: h("span", { class: "small saved" }),
      query: h("div", { class: "query" }), card: h("article", { class: "document card", tabindex: -1 }, h("p", { class: "muted" }, "The first document is being read.")), dots: h("div", { class: "dots", role: "group", "aria-label": "Documents of this query" }),
      grades: h("div", { class: "grades", role: "group", "aria-label": "Grade" }), more: h("div", { class: "actions more-actions" }),
    };
    place.replaceChildren(h("div", { class: "judge-bar" }, nodes.who, h("div", { class: "judge-progress" }, nodes.bar, nodes.counts, nodes.saved)),
      h("div", { class: "judge-desk" }, nodes.query, nodes.dots, nodes.card, nodes.grades, nodes.more));
    nodes.who.append(h("span", null, "You are ", h("b", null, name)), h("button", { class: "quiet tiny", type: "button", on: { click: forget } }, "Change"));
    nodes.grades.append(...GRADES.map((label, grade) => h("button", {
      type: "button", class: `grade g${grade}`, disabled: !state.may_write, on: { click: once(() => give(grade)) },
    }, h("kbd", null, grade), h("span", null, label))));
    nodes.more.append(
      h("button", { type: "button", disabled: !state.may_write, on: { click: once(undo) } }, "Undo ", h("kbd", null, "u")),
      h("button", { type: "button", disabled: !state.may_write, on: { click: once(() => give(null)) } }, "Skip ", h("kbd", null, "s")),
      h("button", { type: "button", on: { click: () => step(-1) } }, "Previous query ", h("kbd", null, "p")),
      h("button", { type: "button", on: { click: () => step(1) } }, "Next query ", h("kbd", null, "n")));
    left = await app.api(`${at("left")}?judge=${encodeURIComponent(name)}`);
    const asked = app.get("query");
    await go(ids.includes(asked) ? asked : firstUnfinished() ?? ids[0], app.get("document"));
    return { key, saved: () => busy };

    function key(event) {
      const { key } = event;
      if (event.repeat) return false; // a key that is held down grades one document
      if (/^[0-3]$/.test(key)) give(Number(key));
      else if (key === "u") undo();
      else if (key === "s") give(null);
      else if (key === "t") fullText();
      else if (key === "n") step(1);
      else if (key === "p") step(-1);
      else return false;
      return true;
    }

    function firstUnfinished(after = -1) {
      const unfinished = (one) => (left.done[one.id] ?? 0) < one.documents;
      const found = state.queries.slice(after + 1).find(unfinished) ?? state.queries.find(unfinished);
      return found?.id;
    }

    async function pool(id) {
      if (!pools.has(id)) {
        const params = new URLSearchParams({ query: id, judge: name });
        pools.set(id, app.api(`${at("documents")}?${params}`, undefined, { quiet: true }));
      }
      try {
        return await pools.get(id);
      } catch (error) {
        pools.delete(id);
        throw error;
      }
    }

    async function go(id, document) {
      moving = true; // no key grades the document that is still shown
      try {
        query = await pool(id);
      } catch (error) {
        app.fail(error);
        return;
      } finally {
        moving = false;
      }
      const wanted = query.documents.findIndex((one) => one.id === document);
      const first = query.documents.findIndex((one) => !one.done);
      current = wanted >= 0 ? wanted : Math.max(first, 0);
      draw();
      const next = firstUnfinished(ids.indexOf(id));
      if (next && next !== id) pool(next).catch(() => {}); // so that it is there at once
    }

    function shows() {
      return !leaving.signal.aborted && nodes.card.isConnected;
    }

    function draw() {
      if (!shows()) return;
      const document = query.documents[current];
      const finished = query.documents.every((one) => one.done);
      app.set({ query: query.query, document: null });
      open = false;
      drawProgress();
      nodes.query.replaceChildren(
        h("p", { class: "small" }, `Query ${ids.indexOf(query.query) + 1} of ${ids.length}`, finished ? " · finished" : ""),
        h("h2", null, query.text));
      nodes.dots.replaceChildren(...query.documents.map((one, place) => h("button", {
        type: "button", class: `dot ${one.done ? `g${one.grade ?? "s"}` : ""}`, "aria-pressed": place === current,
        "aria-label": `Document ${place + 1}, ${!one.done ? "not judged" : one.grade === null ? "skipped" : `grade ${one.grade}`}`,
        on: { click: () => { current = place; draw(); } },
      }, !one.done ? "·" : one.grade ?? "–")));
      nodes.grades.querySelectorAll("button").forEach((button, grade) => button.setAttribute("aria-pressed", String(document?.done && document.grade === grade)));
      if (!document) {
        nodes.card.replaceChildren(h("p", { class: "muted" }, "No system found a document for this query."));
        return;
      }
      const text = h("p", { class: "text" });
      nodes.card.replaceChildren(
        document.title ? h("h3", null, document.title) : null, h("p", { class: "small id" }, document.id), text,
        document.snippet ? h("button", { type: "button", class: "quiet", id: "full", "aria-expanded": "false", on: { click: fullText } }, "Full text ", h("kbd", null, "t")) : null);
      if (document.snippet) text.append(...lines(document.snippet));
      else text.replaceWith(h("p", { class: "note" }, "This document is not in the index any more. Skip it."));
      if (document.snippet && !document.snippet.before && !document.snippet.after) nodes.card.querySelector("#full")?.remove();
    }

    function drawProgress() {
      if (!shows()) return;
      const sum = (of) => Object.values(of).reduce((total, one) => total + one, 0);
      const done = sum(left.done), skipped = sum(left.skipped), documents = state.queries.reduce((total, one) => total + one.documents, 0);
      nodes.bar.value = documents ? done / documents : 0;
      nodes.counts.textContent = `${done.toLocaleString("en")} of ${count(documents, "document")}${skipped ? `, ${skipped.toLocaleString("en")} skipped` : ""}`;
      place.querySelector(".finished")?.remove();
      if (done < documents) return;
      if (unsaved) {
        place.querySelector(".judge-desk").before(h("div", { class: "card finished" }, h("p", null, "The last grades are being saved.")));
        return;
      }
      const again = state.queries.find((one) => left.skipped[one.id]);
      place.querySelector(".judge-desk").before(h("div", { class: "card finished" },
        h("p", null, h("b", null, "You have judged all documents."), " All grades are saved."),
        h("div", { class: "actions" },
          h("a", { class: "button", href: app.link("choose") }, "Go to Choose"),
          again ? h("button", { type: "button", on: { click: skippedAgain } }, `Look at ${count(skipped, "skipped document")} again`) : null)));

      async function skippedAgain() {
        const found = await pool(again.id);
        await go(again.id, found.documents.find((one) => one.done && one.grade === null)?.id);
      }
    }

    async function fullText() {
      const document = query?.documents[current], button = nodes.card.querySelector("#full");
      if (!button) return;
      open = !open;
      const key = JSON.stringify([query.query, document.id]);
      try {
        if (open && !whole.has(key)) {
          const params = new URLSearchParams({ query: query.query, document: document.id });
          whole.set(key, await app.api(`${at("text")}?${params}`, undefined, { quiet: true }));
        }
      } catch (error) {
        open = false;
        app.fail(error);
        return;
      }
      if (document !== query.documents[current]) return;
      nodes.card.querySelector(".text").replaceChildren(...lines(open ? whole.get(key).snippet : document.snippet));
      button.setAttribute("aria-expanded", String(open));
      button.firstChild.textContent = open ? "Less text " : "Full text ";
    }

    // The grade is shown at once. Grades are saved one after the other. If it cannot be saved, the page says so and loads what
    // was saved.
    function give(grade) {
      const document = query?.documents[current];
      if (!state.may_write || !document || moving) return;
      const body = { judge: name, query: query.query, document: document.id, grade };
      const before = { done: document.done, grade: document.grade };
      mark(body.query, document, { done: true, grade });
      saving(1);
      busy = busy.then(() => app.api(at("grade"), body)).catch((error) => {
        mark(body.query, document, before); // the service may be away, so that it cannot tell what was saved
        return failed(error, body.query, body.document);
      }).finally(() => saving(-1));
      const said = grade === null ? "Skipped." : `Grade ${grade}: ${GRADES[grade]}.`;
      forward().then(() => app.say(`${said} ${query.documents[current].title || query.documents[current].id}`));
    }

    function mark(id, document, { done, grade }) {
      const skips = (one) => Number(one.done && one.grade === null);
      left.done[id] = (left.done[id] ?? 0) + Number(done) - Number(document.done);
      left.skipped[id] = (left.skipped[id] ?? 0) + skips({ done, grade }) - skips(document);
      Object.assign(document, { done, grade });
    }

    // The page asks before it is closed while a grade is on its way.
    function saving(by) {
      unsaved += by;
      nodes.saved.textContent = unsaved ? "saving" : "saved";
      if (!unsaved) drawProgress();
      window[unsaved ? "addEventListener" : "removeEventListener"]("beforeunload", stay);
    }

    async function forward() {
      const next = query.documents.findIndex((one, place) => place > current && !one.done);
      const open = next >= 0 ? next : query.documents.findIndex((one) => !one.done);
      if (open >= 0) {
        current = open;
        draw();
        return;
      }
      const id = firstUnfinished(ids.indexOf(query.query));
      if (id && id !== query.query) await go(id);
      else draw();
    }

    async function failed(error, id = query?.query ?? ids[0], document = query?.documents[current]?.id) {
      app.fail(error);
      try {
        left = await app.api(`${at("left")}?judge=${encodeURIComponent(name)}`, undefined, { quiet: true });
        pools.clear();
      } catch { /* the page shows what it knows */ }
      await go(id, document);
    }

    function undo() {
      if (!state.may_write) return;
      busy = busy.then(async () => {
        const { undone } = await app.api(at("undo"), { judge: name });
        if (!undone) return app.say("There is nothing to undo.");
        pools.delete(undone.query);
        left = await app.api(`${at("left")}?judge=${encodeURIComponent(name)}`);
        await go(undone.query, undone.document);
        app.say("Undone.");
      }).catch(failed);
    }

    function step(by) {
      go(ids[(ids.indexOf(query?.query) + by + ids.length) % ids.length]);
    }

    function forget() {
      remember("");
      change("judge");
    }
  }

  function askName() {
    const field = h("input", { id: "judge", maxlength: 80, required: true, autocomplete: "off" });
    const documents = state.queries.reduce((sum, one) => sum + one.documents, 0);
    const people = state.judges.filter((one) => !one.about).map((one) => one.name);
    place.replaceChildren(h("form", { class: "card ask-name", on: { submit: (event) => { event.preventDefault(); use(field.value); } } },
      h("h2", null, "Who are you?"),
      h("p", null, `${documents === 1 ? "There is" : "There are"} ${count(documents, "document")} of ${count(state.queries.length, "query", "queries")} to judge.`),
      h("p", { class: "muted" }, "Each grade is saved with the name of its judge, so that judges can be compared. This browser remembers your name."),
      h("div", { class: "field" }, h("label", { for: "judge" }, "Your name"), field),
      people.length ? h("div", { class: "actions" }, h("span", { class: "small" }, "Or go on as"), people.map((name) => h("button", { type: "button", on: { click: () => use(name) } }, name))) : null,
      state.program && !state.judges.some((one) => one.about) ? h("div", { class: "actions" }, h("span", { class: "small" }, "A program can judge before you do."), h("button", { type: "button", class: "quiet", on: { click: () => change("agreement") } }, "Let a program judge")) : null,
      h("div", { class: "actions" }, h("button", { class: "main" }, "Begin"))));
    field.focus();
    return {};

    function use(name) {
      const program = state.judges.find((one) => one.about && one.name === name.trim());
      if (program) return app.fail(new Error(`${program.name} is a program: use another name.`));
      if (!name.trim()) return;
      remember(name.trim());
      change("judge");
    }
  }

  // Agreement and export

  async function agreementView() {
    const found = await app.api(at("agreement"));
    const judges = Object.fromEntries(state.judges.map((one) => [one.name, one.about]));
    if (!state.judges.length) {
      place.replaceChildren(h("p", { class: "muted" }, "Nobody has judged yet."), programCard());
      return {};
    }
    const settle = settlement(judges);
    place.replaceChildren(
      h("section", { class: "card" }, h("h2", null, "Judges"), table(["Judge", "Graded", "Grades 0, 1, 2, 3", "Skipped", "Queries finished"], state.judges.map((one) =>
        [[one.name, one.about ? h("div", { class: "small" }, one.about) : null], one.graded.toLocaleString("en"), one.grades.map((number) => number.toLocaleString("en")).join(", "), one.skipped.toLocaleString("en"), `${one.finished.toLocaleString("en")} of ${one.queries.toLocaleString("en")}`]))),
      h("section", { class: "card" }, h("h2", null, "Agreement"), agreements(found.agreement)),
      h("section", { class: "card" }, h("h2", null, `Where judges differ (${found.total.toLocaleString("en")})`), differences(found)),
      programCard(),
      h("section", { class: "card export" }, h("h2", null, "Export"), settle.node,
        h("div", { class: "actions" },
          h("button", { type: "button", on: { click: () => save("qrels", `${app.index}.qrels`) } }, "TREC qrels"),
          h("button", { type: "button", on: { click: () => save("beir", `${app.index}.zip`) } }, "BEIR folder (ZIP)")),
        h("p", { class: "small" }, "hs.load_dataset(folder) reads the unpacked BEIR folder. It has the documents if there are at most 100,000.")));
    return {};

    async function save(kind, name) {
      try {
        const url = URL.createObjectURL(await app.api(at("export", kind), settle.value(), { blob: true }));
        h("a", { href: url, download: name }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10_000);
      } catch (error) {
        app.fail(error);
      }
    }
  }

  // A program grades all documents. Its scores have any scale, so people see some of them before they choose thresholds.
  function programCard() {
    const { program } = state;
    if (!program) {
      return h("section", { class: "card" }, h("h2", null, "Let a program judge"),
        h("p", { class: "muted" }, "A cross-encoder can grade all documents. Start the service with --judge MODEL. In Python, judge_with also takes a function that asks a language model."));
    }
    const name = h("input", { id: "program", maxlength: 80, required: true, autocomplete: "off", value: program.name });
    const limits = [1, 2, 3].map((grade) => h("input", { type: "number", step: "any", "aria-describedby": "least-help", id: `least-${grade}`, required: true, on: { input: regrade } }));
    const seen = h("div");
    let scores = [];
    return h("form", { class: "card program", on: { submit: start } },
      h("h2", null, "Let a program judge"),
      h("p", null, program.about, " can grade all documents. Then people check the documents where their grades differ."),
      program.reranks ? h("p", { class: "note" }, "This is the reranker of the index. Do not measure the reranker with its grades.") : null,
      h("div", { class: "field" }, h("label", { for: "program" }, "Name of this judge"), name),
      h("div", { class: "field" }, h("p", { class: "small", id: "least-help" }, "Each model has a scale of its own, so look at some scores before you choose."),
        h("div", { class: "checks" }, limits.map((field, place) => h("div", { class: "field numbers" }, h("label", { for: field.id }, `Least score of grade ${place + 1}`), field)))),
      seen,
      h("div", { class: "actions" },
        h("button", { type: "button", disabled: !state.may_write, on: { click: look } }, "Show some scores"),
        h("button", { class: "main", disabled: !state.may_write }, "Grade all documents")));

    async function look({ target }) {
      target.disabled = true;
      try {
        ({ scores } = await app.api(at("scores"), {}));
        regrade();
      } catch (error) {
        app.fail(error);
      } finally {
        target.disabled = false;
      }
    }

    function regrade() {
      if (!scores.length) return;
      const set = limits.map((field) => field.valueAsNumber);
      seen.replaceChildren(table(["Score", "Grade", "Query", "Document"], scores.map((one) => {
        const grade = set.filter((least) => one.score >= least).length;
        return [h("span", { class: "figure" }, one.score.toPrecision(3)), h("span", { class: `figure dot g${grade}` }, grade), one.query, one.title];
      })));
    }

    async function start(event) {
      event.preventDefault();
      try {
        scrollTo({ top: 0 }); // the progress and the result are there
        follow(await app.api(at("program"), { judge: name.value, thresholds: limits.map((field) => field.valueAsNumber) }));
      } catch (error) {
        app.fail(error);
      }
    }
  }

  function agreements(pairs) {
    if (!pairs.length) return h("p", { class: "muted" }, "If two judges grade the same documents, this shows how far they agree.");
    const interval = (of) => (of.mean === null ? "not defined" : [h("b", null, of.mean.toFixed(2)), h("span", { class: "small" }, ` ${of.low.toFixed(2)} to ${of.high.toFixed(2)}`)]);
    return [
      table(["Judges", "Cohen’s kappa", "Weighted kappa", "Same grade", "Documents"], pairs.map((one) =>
        [`${one.first} and ${one.second}`, [interval(one.kappa), h("div", { class: "small" }, one.word)], interval(one.weighted), `${Math.round(one.same * 100)} %`, one.pairs.toLocaleString("en")])),
      h("p", { class: "small" }, "Kappa is agreement beyond chance: 1 means always, and 0 means as often as chance. The two numbers after it are its 95 % interval. In the weighted kappa, a small difference between grades counts less than a large one."),
    ];
  }

  function differences({ disagreements, total }) {
    if (!total) return h("p", { class: "muted" }, "No document has different grades.");
    const names = [...new Set(disagreements.flatMap((one) => Object.keys(one.grades)))];
    return [
      table(["Query", "Document", ...names, ""], disagreements.map((one) => [one.text, one.title,
        ...names.map((name) => (name in one.grades ? h("span", { class: `dot g${one.grades[name]}` }, one.grades[name]) : "")),
        h("button", { type: "button", class: "tiny", "aria-label": `Look at ${one.title}`, on: { click: () => { app.set({ query: one.query, document: one.document }); change("judge"); } } }, "Look")])),
      total > disagreements.length ? h("p", { class: "small" }, `The ${count(disagreements.length, "document")} with the largest differences are shown.`) : null,
    ];
  }
}

// A snippet as nodes, with its highlights marked
function lines({ text, marks, before, after }) {
  const parts = [before ? "… " : ""];
  let end = 0;
  const characters = [...text]; // the service counts characters, not the units of JavaScript
  for (const [from, to] of marks) {
    parts.push(characters.slice(end, from).join(""), h("mark", null, characters.slice(from, to).join("")));
    end = to;
  }
  return [...parts, characters.slice(end).join(""), after ? " …" : ""];
}

export function table(heads, rows) {
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": heads[0] },
    h("table", { class: "list" },
      h("thead", null, h("tr", null, heads.map((head) => (head ? h("th", { scope: "col" }, head) : h("td"))))),
      h("tbody", null, rows.map((cells) => h("tr", null, cells.map((cell, place) => h("td", { data: { head: heads[place] } }, cell)))))));
}

// A double click is one click: the second one would act on the next document.
function once(act) {
  return (event) => { if (event.detail < 2) act(); };
}

function stay(event) {
  event.preventDefault();
}

const KEY = "hybridsearch-judge";

function remembered() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return remember.kept ?? "";
  }
}

function remember(name) {
  remember.kept = name;
  try {
    localStorage.setItem(KEY, name);
  } catch { /* storage is off */ }
}
