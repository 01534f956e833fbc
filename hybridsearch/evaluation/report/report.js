// Sorting, tooltips, and the choice of theme and measure. The page can be read without this script.
"use strict";

const root = document.documentElement;
try {
  const kept = localStorage.getItem("hybridsearch-theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
} catch { /* storage is off */ }

document.addEventListener("DOMContentLoaded", () => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  all(".needs-js").forEach((one) => { one.hidden = false; });
  theme();
  all("table.sortable").forEach(sortable);
  measures();
  const tip = tooltip();
  bars(tip);
  queries();
  all(".goes-on").forEach(goesOn);

  function theme() {
    const button = document.getElementById("theme");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
    const other = () => (now() === "dark" ? "light" : "dark");
    const label = () => { button.textContent = other() === "dark" ? "Dark theme" : "Light theme"; };
    button.hidden = false;
    label();
    dark.addEventListener("change", label);
    button.addEventListener("click", () => {
      root.dataset.theme = other();
      try { localStorage.setItem("hybridsearch-theme", root.dataset.theme); } catch { /* storage is off */ }
      label();
    });
  }

  // Shows a note above a table that is too wide, until its right end is reached.
  function goesOn(note) {
    const place = note.nextElementSibling;
    const look = () => { note.hidden = place.scrollLeft + place.clientWidth >= place.scrollWidth - 1; };
    place.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(place);
    look();
  }

  // A click on a head sorts by that column. A second click reverses the order. Rows without a value stay last.
  function sortable(table) {
    const heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach((head, column) => {
      const name = head.querySelector("span");
      if (head.classList.contains("axis-head") || !name || !body.querySelector(`tr > :nth-child(${column + 1})[data-sort]`)) return;
      const button = document.createElement("button");
      button.type = "button";
      name.replaceWith(button);
      button.append(name);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const rising = before ? before === "descending" : head.dataset.first === "asc";
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const key = (row) => row.children[column].dataset.sort;
        const numbers = [...body.rows].every((row) => key(row) === undefined || !isNaN(key(row)));
        const compare = (a, b) => (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true }));
        const rows = [...body.rows].sort((a, b) => {
          const left = key(a), right = key(b);
          if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
          return rising ? compare(left, right) : compare(right, left);
        });
        body.append(...rows);
      });
    });
  }

  function measures() {
    const buttons = all("[data-choose]"), views = all("[data-measure]");
    buttons.forEach((button) => button.addEventListener("click", () => {
      const top = button.getBoundingClientRect().top;
      buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.choose === button.dataset.choose)));
      views.forEach((view) => { view.hidden = view.dataset.measure !== button.dataset.choose; });
      scrollBy({ top: button.getBoundingClientRect().top - top, behavior: "instant" });
    }));
  }

  // One tooltip replaces the titles of the browser. It also works with the keyboard and with touch.
  function tooltip() {
    const box = document.createElement("div");
    box.id = "tip";
    box.setAttribute("role", "status");
    box.hidden = true;
    document.body.append(box);
    let again = null; // shows the tooltip of the focused element again after the page has scrolled
    const show = (text, x, y) => {
      box.replaceChildren(...text.split("\n").map((line) => {
        const row = document.createElement("div");
        row.dir = "auto";
        row.textContent = line;
        return row;
      }));
      box.hidden = false;
      const { width, height } = box.getBoundingClientRect();
      box.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
      box.style.top = `${y - height - 12 > 8 ? y - height - 12 : Math.min(y + 18, innerHeight - height - 8)}px`;
    };
    const hide = () => {
      box.hidden = true;
      again = null;
    };
    const stay = (showing) => {
      showing();
      again = showing;
    };
    const follow = (target, text) => {
      target.addEventListener("pointermove", (event) => show(text, event.clientX, event.clientY));
      target.addEventListener("pointerleave", hide);
      target.addEventListener("focus", () => {
        if (!target.matches(":focus-visible")) return;
        stay(() => {
          const at = target.getBoundingClientRect();
          show(text, at.left + at.width / 2, at.top);
        });
      });
      target.addEventListener("blur", hide);
    };
    all("svg title").forEach((title) => {
      const target = title.parentElement, text = title.textContent;
      title.remove();
      if (target.classList.contains("point")) {
        target.setAttribute("tabindex", "0");
        target.setAttribute("role", "img");
        target.setAttribute("aria-label", text.replaceAll("\n", ", "));
      }
      follow(target, text);
    });
    all("td[title]").forEach((cell) => {
      const text = cell.title;
      cell.removeAttribute("title");
      follow(cell, text);
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    addEventListener("scroll", () => (again ? again() : hide()), { passive: true });
    return { show, stay, hide };
  }

  // Bars of the per-query plots show their query. Enter or a click opens the query further below.
  function bars(tip) {
    const data = JSON.parse(document.getElementById("data").textContent);
    const texts = new Map(Object.entries(data.texts)), details = new Map(Object.entries(data.details));
    const number = (units) => (units / 10000).toFixed(3).replace("-", "−");
    all("svg.bars").forEach((plot) => {
      const scores = data.scores[plot.closest("[data-measure]").dataset.measure];
      if (!scores) return;
      const own = scores[plot.dataset.system];
      const other = data.baseline === null ? null : scores[data.baseline];
      const gain = own.map((value, place) => value - (other ? other[place] : 0));
      const order = gain.map((_, place) => place).sort((a, b) => gain[b] - gain[a] || a - b);
      const drawn = plot.viewBox.baseVal.width;
      const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      cursor.setAttribute("class", "cursor");
      cursor.setAttribute("y", "0");
      cursor.setAttribute("height", "100");
      cursor.setAttribute("width", "0");
      plot.prepend(cursor);
      plot.setAttribute("tabindex", "0");
      const called = plot.getAttribute("aria-label");
      let at = -1;
      const place = (index, x, y) => {
        at = Math.max(0, Math.min(order.length - 1, index));
        const query = order[at], id = data.queries[query], wide = Math.max(drawn / order.length, drawn / 200);
        cursor.setAttribute("x", String(((at + 0.5) * drawn) / order.length - wide / 2));
        cursor.setAttribute("width", String(wide));
        const of = data.names[plot.dataset.system];
        const lines = [texts.get(id) ? `${id}: ${texts.get(id)}` : `Query ${id}`, `${of}: ${number(own[query])}`];
        if (other) {
          lines.push(`${data.names[data.baseline]}: ${number(other[query])}`);
          lines.push(`difference: ${gain[query] > 0 ? "+" : ""}${number(gain[query])}`);
        }
        if (details.has(id)) lines.push("Click or press Enter to read this query");
        if (x === undefined) {
          tip.stay(() => {
            const box = plot.getBoundingClientRect();
            tip.show(lines.join("\n"), box.left + (box.width * (at + 0.5)) / order.length, box.top);
          });
        } else tip.show(lines.join("\n"), x, y);
        plot.setAttribute("aria-label", `${called}. ${lines.join(", ")}`);
        plot.classList.toggle("opens", details.has(id));
      };
      const leave = () => {
        tip.hide();
        cursor.setAttribute("width", "0");
        plot.setAttribute("aria-label", called);
      };
      const open = () => {
        const target = at >= 0 && document.getElementById(details.get(data.queries[order[at]]));
        if (!target) return;
        leave();
        target.hidden = false;
        target.open = true;
        target.scrollIntoView();
        target.querySelector("summary").focus({ preventScroll: true });
      };
      plot.addEventListener("pointermove", (event) => {
        const box = plot.getBoundingClientRect();
        place(Math.floor(((event.clientX - box.left) / box.width) * order.length), event.clientX, event.clientY);
      });
      plot.addEventListener("pointerleave", leave);
      plot.addEventListener("blur", leave);
      plot.addEventListener("click", open);
      plot.addEventListener("keydown", (event) => {
        const step = { ArrowRight: at + 1, ArrowLeft: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: order.length - 1 }[event.key];
        if (step !== undefined) {
          event.preventDefault();
          place(step);
        } else if (event.key === "Enter") {
          event.preventDefault(); // else Enter would also reach the summary and close it
          open();
        }
      });
    });
  }

  function queries() {
    const find = document.getElementById("find"), expand = document.getElementById("expand");
    if (!find) return;
    const every = all("details.query");
    find.addEventListener("input", () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      every.forEach((one) => {
        const text = one.querySelector("summary").textContent.toLowerCase();
        one.hidden = !words.every((word) => text.includes(word));
      });
    });
    expand.addEventListener("click", () => {
      const opening = !every.every((one) => one.open);
      every.forEach((one) => { one.open = opening; });
      expand.textContent = opening ? "Collapse all" : "Expand all";
    });
  }
});
