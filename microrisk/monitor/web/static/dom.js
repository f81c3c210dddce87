// Elements without markup in strings: whatever a venue calls an instrument stays text.

/** An element. Keys of `props`: `class`, `text`, `on` (listeners), everything else is an attribute. */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") el.className = value;
    else if (key === "text") el.textContent = value;
    else if (key === "on") for (const [type, act] of Object.entries(value)) el.addEventListener(type, act);
    else el.setAttribute(key, value === true ? "" : value);
  }
  el.append(...children.filter((c) => c !== null && c !== undefined));
  return el;
}

/** Change a text only when it is another one: no layout, no repaint, no chatter for screen readers. */
export function text(el, value) {
  if (el.textContent !== value) el.textContent = value;
}

export function attr(el, name, value) {
  if (value === null || value === false) el.removeAttribute(name);
  else if (el.getAttribute(name) !== String(value)) el.setAttribute(name, String(value));
}

export function show(el, visible) {
  if (el.hidden === visible) el.hidden = !visible;
}

/** Rows of a table by key: elements are kept, and moved only when the order changed. */
export class Rows {
  constructor(body, make) {
    this.body = body;
    this.make = make;
    this.rows = new Map();
  }

  set(items, keyOf) {
    const gone = new Set(this.rows.keys());
    let at = this.body.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      gone.delete(key);
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = this.make(item)));
      row.update(item);
      if (row.el === at) at = at.nextElementSibling;
      else this.body.insertBefore(row.el, at);
    }
    for (const key of gone) {
      this.rows.get(key).el.remove();
      this.rows.delete(key);
    }
  }

  clear() {
    this.rows.clear();
    this.body.replaceChildren();
  }
}

/** A table with headed columns: [{name, title, class}]. */
export function table(columns, label) {
  const body = h("tbody");
  const head = h(
    "tr",
    {},
    ...columns.map((c) => h("th", { scope: "col", class: c.class, title: c.title, text: c.name })),
  );
  return { el: h("table", { "aria-label": label }, h("thead", {}, head), body), body };
}

export function cells(columns) {
  return columns.map((c) => h("td", { class: c.class }));
}

export function panel(title, ...children) {
  const head = h("h2", { text: title });
  return h("section", { class: "panel", "aria-label": title }, head, ...children);
}

const GLYPHS = { live: "●", syncing: "◌", stale: "▨", suspect: "▲", down: "✕", ended: "■" };

/** The state of a feed or instrument: a sign, a word, a pattern; never colour alone. */
export function stateChip() {
  const sign = h("span", { "aria-hidden": "true" });
  const word = h("span");
  const el = h("span", { class: "state" }, sign, word);
  return {
    el,
    update(state) {
      if (el.dataset.state === state) return;
      el.dataset.state = state;
      sign.textContent = GLYPHS[state] ?? "?";
      word.textContent = state;
    },
  };
}
