// Alerts: the list, what surrounded each, and what a person says of it.

import { h, text, attr, show, Rows, table, cells } from "./dom.js";
import { clock, count, day, odds } from "./fmt.js";
import { getBytes, post } from "./net.js";
import { decode } from "./wire.js";
import { Choice } from "./list.js";
import { Heatmap } from "./heatmap.js";
import { Ladder } from "./ladder.js";
import { Model } from "./model.js";
import { empty } from "./page_overview.js";

const LISTED = 300;
const KEPT = 10_000;
const COLUMNS = [
  { name: "time, UTC" },
  { name: "instrument" },
  { name: "head" },
  { name: "rarity", class: "n" },
  { name: "drivers", class: "why" },
  { name: "label" },
];
const LABELS = { true: "✓ true", false: "✗ false" };

export class AlertsPage {
  constructor(app) {
    this.app = app;
    this.alerts = new Map();
    this.labels = {};
    this.replay = new Replay();
    this.build();
    app.link.on("alerts", (m) => this.take(m.alerts));
    app.link.on("labels", (m) => this.relabel(m.labels));
  }

  build() {
    const list = table(COLUMNS, "Alerts");
    this.rows = new Rows(list.body, (a) => this.row(a));
    this.choice = new Choice(this.rows, { open: (id) => this.app.go("alerts", id) });
    const redraw = () => this.draw();
    this.filter = h("input", { type: "search", placeholder: "Filter: instrument, feed, driver", "aria-label": "Filter alerts", on: { input: redraw, keydown: leave } });
    this.head = h("select", { "aria-label": "Head", on: { change: redraw } }, h("option", { value: "", text: "all heads" }), ...this.app.meta.heads.map((x) => h("option", { value: x.name, text: x.name })));
    this.labelled = h("select", { "aria-label": "Label", on: { change: redraw } }, ...[["", "any label"], ["none", "not labelled"], ["true", "labelled true"], ["false", "labelled false"]].map(([value, words]) => h("option", { value, text: words })));
    this.shown = h("span", { class: "muted" });
    this.none = empty("No alert so far. A head has to be rarer than its level for a while; page 2 shows how near it is.");
    this.detail = h("div", { class: "detail" });
    this.nothing = h("p", { class: "empty", text: "Choose an alert: j and k move, Enter opens." });
    this.el = h(
      "div",
      { class: "page alerts" },
      h("div", { class: "toolbar" }, this.filter, this.head, this.labelled, this.shown, h("span", { class: "grow" }), h("a", { class: "button", href: "/api/alerts.csv", download: "alerts.csv", text: "CSV" }), h("a", { class: "button", href: "/api/alerts.jsonl", download: "alerts.jsonl", text: "JSON lines" })),
      h("section", { class: "panel list", "aria-label": "Alerts" }, h("div", { class: "scroll" }, list.el, this.none)),
      h("section", { class: "panel one", "aria-label": "The alert" }, this.nothing, this.head1(), this.replay.el, this.detail),
    );
    show(this.replay.el, false);
  }

  head1() {
    this.title = h("h2", { class: "title" });
    const button = (value, words) => h("button", { type: "button", text: words, "data-label": String(value), on: { click: () => this.label(value) } });
    this.buttons = [button(true, "✓ true"), button(false, "✗ false"), button(null, "none")];
    this.open1 = h("a", { class: "button", text: "Book" });
    this.one = h("div", { class: "one-head", role: "group", "aria-label": "Was the alert right?", hidden: true }, this.title, h("span", { class: "grow" }), ...this.buttons, this.open1);
    return this.one;
  }

  // -- the list -----------------------------------------------------------------------------------------------------------

  take(alerts) {
    for (const a of alerts) this.alerts.set(a.id, a);
    while (this.alerts.size > KEPT) this.alerts.delete(this.alerts.keys().next().value);
    this.draw();
    if (this.wanted && this.alerts.has(this.wanted)) this.inspect(this.wanted);
  }

  relabel(labels) {
    this.labels = labels;
    this.draw();
    this.pressed();
  }

  matches() {
    const words = this.filter.value.trim().toLowerCase();
    const label = this.labelled.value;
    const fits = (a) =>
      (!this.head.value || a.head === this.head.value) &&
      (!label || (label === "none" ? this.labels[a.id] === undefined : String(this.labels[a.id]) === label)) &&
      (!words || `${a.instrument} ${a.feed} ${a.drivers.join(" ")}`.toLowerCase().includes(words));
    return [...this.alerts.values()].reverse().filter(fits);
  }

  draw() {
    const found = this.matches();
    this.rows.set(found.slice(0, LISTED), (a) => a.id);
    this.choice.mark();
    const more = found.length > LISTED ? `newest ${LISTED} of ` : "";
    text(this.shown, `${more}${count(found.length)} alerts`);
    show(this.none, this.alerts.size === 0);
  }

  row(a) {
    const td = cells(COLUMNS);
    [clock(a.ts_ns / 1e6, 1), a.instrument, a.head, odds(a.level), a.drivers.map((d) => d.split(": ").pop()).join(", ")].forEach((v, i) => text(td[i], v));
    td[4].title = a.drivers.join("\n");
    if (a.suspect) td[1].append(h("span", { class: "mark", title: "the book was marked when the alert arose", text: " ▲" }));
    return { el: h("tr", { "data-key": a.id, class: "opens" }, ...td), update: () => text(td[5], LABELS[this.labels[a.id]] ?? "") };
  }

  // -- one alert ----------------------------------------------------------------------------------------------------------

  open(id) {
    this.wanted = id;
    if (id && this.alerts.has(id)) this.inspect(id);
    this.draw();
  }

  hide() {
    this.replay.stop();
  }

  async inspect(id) {
    this.wanted = "";
    if (this.choice.key !== id) this.choice.set(id);
    if (this.inspected === id) return;
    this.inspected = id;
    const a = this.alerts.get(id);
    show(this.nothing, false);
    show(this.one, true);
    text(this.title, `${a.instrument} · ${a.head} · ${clock(a.ts_ns / 1e6, 3)}`);
    this.open1.href = `#/instrument/${encodeURIComponent(a.instrument)}`;
    this.words(a);
    this.pressed();
    await this.load(a);
  }

  async load(a) {
    show(this.replay.el, true);
    this.replay.clear("Loading …");
    try {
      const frames = decode(await getBytes(`/api/alerts/${encodeURIComponent(a.id)}/around?binary=1`), this.app.meta.layout.states);
      if (this.inspected === a.id) this.replay.show(frames, a.ts_ns / 1e6);
    } catch (error) {
      if (this.inspected === a.id) this.replay.clear(error.status === 404 ? "What surrounded this alert is not kept any more; the journal has it." : `Not loaded: ${error.message}`);
    }
  }

  words(a) {
    const fact = (name, value) => h("div", {}, h("dt", { text: name }), h("dd", { text: value }));
    const drivers = a.drivers.map((d) => h("li", { text: d.split(": ").pop(), title: d }));
    this.detail.replaceChildren(
      h("ol", { class: "drivers", "aria-label": "Drivers" }, ...drivers),
      h("dl", { class: "facts" }, fact("rarity", `${odds(a.level)}${a.calibrated ? "" : ", not calibrated for this instrument"}`), fact("best", `${a.bid || "–"} / ${a.ask || "–"}`), fact("book", a.suspect ? "marked when it arose" : "in order"), fact("feed", `${a.feed}, session ${a.session || "–"}, sequence ${count(a.seq)}`), fact("model", `${a.model} on ${a.backend}`), fact("day", day(a.ts_ns / 1e6)), fact("id", a.id)),
    );
  }

  pressed() {
    for (const b of this.buttons) {
      const mine = String(this.labels[this.inspected] ?? null) === b.dataset.label;
      attr(b, "aria-pressed", String(mine));
      b.disabled = !this.app.owner;
      b.title = this.app.owner ? "" : "the viewer token changes nothing";
    }
  }

  async label(value) {
    const id = this.inspected ?? this.choice.key;
    if (!id || !this.app.owner) return;
    try {
      await post(`/api/alerts/${encodeURIComponent(id)}/label`, { value });
      if (value === null) delete this.labels[id];
      else this.labels[id] = value;
      this.app.say(value === null ? "label taken back" : `labelled ${value}`);
    } catch (error) {
      this.app.say(`not labelled: ${error.message}`);
    }
    this.relabel({ ...this.labels });
  }

  key(e) {
    if (this.choice.press(e.key)) return true;
    const acts = {
      " ": () => this.replay.toggle(),
      ArrowLeft: () => this.replay.step(-1),
      ArrowRight: () => this.replay.step(1),
      y: () => this.label(true),
      n: () => this.label(false),
      u: () => this.label(null),
    };
    acts[e.key]?.();
    return e.key in acts;
  }
}

function leave(e) {
  if (e.key === "Escape" || e.key === "Enter") e.target.blur();
}

/** Ten seconds on the heatmap of the instrument page, with a cursor that can be dragged or played. */
class Replay {
  constructor() {
    this.heatmap = new Heatmap({ label: "Order book around the alert", fixed: true });
    this.ladder = new Ladder(8);
    this.model = new Model();
    this.slider = h("input", { type: "range", min: 0, max: 1, value: 0, "aria-label": "Moment of the replay", on: { input: () => this.seek(Number(this.slider.value)) } });
    this.button = h("button", { type: "button", class: "fixed", text: "▶ Play", on: { click: () => this.toggle() } });
    this.moment = h("span", { class: "moment n" });
    this.message = h("p", { class: "empty", hidden: true });
    this.picture = h("div", { class: "picture" }, this.heatmap.el, this.ladder.el);
    this.el = h("div", { class: "replay" }, this.message, this.picture, h("div", { class: "scrub" }, this.button, this.slider, this.moment));
  }

  clear(words) {
    this.stop();
    this.model.clear();
    this.heatmap.clear();
    this.ladder.clear();
    text(this.message, words);
    show(this.message, true);
    this.picture.classList.add("idle");
  }

  show(frames, atMs) {
    if (frames.length === 0) {
      this.clear("No frame was made around this alert: nobody looked at the instrument and it was not sampled.");
      return;
    }
    show(this.message, false);
    this.picture.classList.remove("idle");
    this.model.add(frames);
    this.atMs = atMs;
    this.heatmap.markMs = atMs;
    this.heatmap.push(frames, this.model.decimals);
    this.slider.max = frames.length - 1;
    let at = frames.findIndex((f) => f.ms >= atMs);
    if (at < 0) at = frames.length - 1;
    this.seek(at);
  }

  seek(at) {
    const frame = this.model.frames[at];
    if (!frame) return;
    this.at = at;
    this.slider.value = at;
    this.heatmap.cursorMs = frame.ms;
    this.heatmap.wake();
    this.ladder.show(frame, this.model.decimals);
    const offset = (frame.ms - this.atMs) / 1000;
    const words = `${offset < 0 ? "−" : "+"}${Math.abs(offset).toFixed(2)} s`;
    text(this.moment, words);
    attr(this.slider, "aria-valuetext", words);
  }

  step(by) {
    this.stop();
    this.seek(Math.min(this.model.frames.length - 1, Math.max(0, (this.at ?? 0) + by)));
  }

  toggle() {
    if (this.playing) this.stop();
    else if (this.model.frames.length > 1) this.play();
  }

  play() {
    const { frames } = this.model;
    if (this.at >= frames.length - 1) this.at = 0;
    const began = performance.now();
    const from = frames[this.at].ms;
    this.playing = true;
    text(this.button, "❚❚ Stop");
    const turn = () => {
      if (!this.playing) return;
      const now = from + performance.now() - began;
      let at = this.at;
      while (at < frames.length - 1 && frames[at + 1].ms <= now) at += 1;
      this.seek(at);
      if (at >= frames.length - 1) this.stop();
      else requestAnimationFrame(turn);
    };
    requestAnimationFrame(turn);
  }

  stop() {
    this.playing = false;
    text(this.button, "▶ Play");
  }
}
