// One instrument: the book over time, its ladder, features, heads, and why it alarms.

import { h, text, attr, show, panel, stateChip } from "./dom.js";
import { clock, compact, count, odds } from "./fmt.js";
import { get } from "./net.js";
import { Heatmap } from "./heatmap.js";
import { Ladder, spreadWords } from "./ladder.js";
import { Chart } from "./chart.js";
import { Features } from "./features.js";
import { Model } from "./model.js";
import { Search } from "./search.js";

const CHART_EVERY_MS = 150;
const STATE_WORDS = {
  syncing: "The book is being built: nothing here is to be trusted yet.",
  stale: "The book was right and may be old.",
  suspect: "Something contradicts the book.",
  down: "There is no connection: this is the last that was known.",
  ended: "The feed has ended: this is its last state.",
};

export class InstrumentPage {
  constructor(app) {
    this.app = app;
    this.id = "";
    this.paused = false;
    this.model = new Model();
    this.search = new Search((id) => app.go("instrument", id));
    this.heatmap = new Heatmap({ label: "Order book over time, size as colour, trades as bubbles" });
    this.ladder = new Ladder(12);
    this.features = new Features(app.meta.features);
    this.makeChart("levels");
    this.build();
    this.listen();
  }

  build() {
    this.chip = stateChip();
    this.best = h("span", { class: "best" });
    this.facts = h("span", { class: "facts muted" });
    this.banner = h("div", { class: "banner", role: "status", hidden: true });
    this.pause = h("button", { type: "button", text: "Pause", on: { click: () => this.toggle() } });
    this.longer = h("button", { type: "button", text: "−", "aria-label": "Longer stretch of time", on: { click: () => this.zoom(1) } });
    this.shorter = h("button", { type: "button", text: "+", "aria-label": "Shorter stretch of time", on: { click: () => this.zoom(-1) } });
    this.stretch = h("span", { class: "fixed" });
    this.scale = h("span", { class: "scale" });
    this.mode = h("select", { "aria-label": "What the chart shows", on: { change: () => this.switchChart() } }, h("option", { value: "levels", text: "rarity of each head" }), h("option", { value: "heads", text: "value of each head" }));
    this.alarm = h("div", { class: "alarm" });
    this.drivers = h("ol", { class: "drivers", "aria-label": "Drivers" });
    this.none = h("p", { class: "empty", hidden: true });
    this.chartBox = h("div", { class: "chart-box" }, this.chart.el);
    this.el = h(
      "div",
      { class: "page instrument" },
      h("div", { class: "toolbar" }, this.search.el, this.chip.el, this.best, this.facts, h("span", { class: "grow" }), this.scale, this.longer, this.stretch, this.shorter, this.pause),
      h("section", { class: "panel map", "aria-label": "Book over time" }, this.heatmap.el, this.banner, this.none),
      h("section", { class: "panel heads", "aria-label": "Heads" }, h("h2", {}, "Heads", this.mode), this.chartBox),
      h("section", { class: "panel book", "aria-label": "Ladder" }, this.ladder.el),
      h("section", { class: "panel why", "aria-label": "Why" }, h("h2", { text: "Drivers" }), this.alarm, this.drivers),
      panel("Features, normal deviations", this.features.el),
    );
    this.el.lastElementChild.classList.add("codes");
    this.stretchWords();
  }

  listen() {
    const { link } = this.app;
    link.on("frames", (frames) => this.take(frames));
    link.on("unknown", (m) => m.instrument === this.id && this.unknown());
    link.on("following", (m) => m.instrument === this.id && this.following(m));
    link.on("skipped", (m) => {
      this.skipped = m.frames;
    });
  }

  // -- which instrument -------------------------------------------------------------------------------------------------

  async open(id) {
    this.opened = true;
    if (!id) {
      if (this.id) {
        history.replaceState(null, "", `#/instrument/${encodeURIComponent(this.id)}`);
        id = this.id;
      } else {
        await this.choose();
        return;
      }
    }
    if (id !== this.id) this.start(id);
    this.app.link.follow(id);
    this.draw();
  }

  hide() {
    this.opened = false;
    this.app.link.follow(null);
  }

  /** Without a name: the busiest instrument that is scored. */
  async choose() {
    const all = await get("/api/instruments").catch(() => []);
    const found = all.find((i) => i.scored) ?? all[0];
    if (!this.opened || this.id || !/^#\/instrument\/?$/.test(location.hash)) return; // somebody was faster
    if (found) this.app.go("instrument", found.id);
    else this.say("No instrument has a book yet. Page 1 (key 1) says what each feed waits for.");
  }

  start(id) {
    this.id = id;
    this.skipped = 0;
    this.model.clear();
    this.heatmap.clear();
    this.ladder.clear();
    this.features.show(null, []);
    this.search.name(id);
    this.say("");
    if (this.paused) this.toggle();
    text(this.best, "");
    text(this.facts, "");
  }

  following(message) {
    if (message.kept === 0 && !this.model.last) this.say("No frame yet: the next event of this instrument makes one.");
  }

  unknown() {
    this.say(`No book goes by the name ${this.id}. Press / and choose one.`);
  }

  say(words) {
    text(this.none, words);
    show(this.none, words !== "");
  }

  // -- frames -----------------------------------------------------------------------------------------------------------

  take(frames) {
    if (!this.opened) return;
    if (!this.model.add(frames)) this.heatmap.clear();
    this.say("");
    if (this.paused) return;
    this.heatmap.push(frames, this.model.decimals);
    this.draw();
  }

  draw() {
    if (this.drawing || !this.model.last) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.opened && !this.paused && this.model.last) this.render(this.model.last);
    });
  }

  render(frame) {
    const d = this.model.decimals;
    this.ladder.show(frame, d);
    this.features.show(frame.codes, frame.drivers);
    this.chip.update(frame.state);
    text(this.best, frame.bids.length && frame.asks.length ? `${d.px.grouped(frame.bids[0])} / ${d.px.grouped(frame.asks[0])}` : "one side is empty");
    const skipped = this.skipped ? ` · ${count(this.skipped)} skipped` : "";
    text(this.facts, `${spreadWords(frame, d)} · ${compact(frame.events)} events · ${clock(frame.ms, 1)}${skipped}`);
    this.state(frame);
    this.why(frame);
    this.scaleWords();
    const now = performance.now();
    if (now - (this.charted ?? 0) >= CHART_EVERY_MS) {
      this.charted = now;
      this.plot();
    }
  }

  state(frame) {
    const words = this.paused ? "Paused: frames are kept, space goes on." : STATE_WORDS[frame.state];
    show(this.banner, words !== undefined);
    attr(this.banner, "data-state", this.paused ? "paused" : frame.state);
    text(this.banner, words === undefined ? "" : this.paused ? words : `${frame.state}: ${words}${frame.why ? ` ${capital(frame.why)}.` : ""}`);
  }

  why(frame) {
    const { heads } = this.app.meta;
    const rung = heads.filter((_, k) => (frame.alert >> k) & 1);
    const scored = frame.levels.length > 0;
    attr(this.alarm, "data-on", rung.length ? "yes" : null);
    const least = scored ? Math.min(...frame.levels) : 1;
    const lead = scored ? heads[frame.levels.indexOf(least)] : null;
    const calm = scored ? `no alarm · rarest: ${lead.name}, ${odds(least)}` : "not scored: only the busiest instruments are";
    text(this.alarm, rung.length ? `▲ ALARM ${odds(least)}\n${rung.map((x) => x.name).join(", ")}` : calm);
    attr(this.alarm, "title", rung.map((x) => `${x.name}: ${x.words}`).join("\n") || null);
    while (this.drivers.children.length < 3) this.drivers.append(h("li"));
    [...this.drivers.children].forEach((li, i) => {
      const [name, meaning] = split(frame.drivers[i] ?? "");
      text(li, meaning || name || "–");
      attr(li, "title", name || null);
    });
  }

  // -- the chart of heads -------------------------------------------------------------------------------------------------

  makeChart(mode) {
    const heads = this.app.meta.heads;
    const dashes = [undefined, [6, 3], [2, 2], [8, 3, 2, 3]];
    const level = mode === "levels";
    this.chart = new Chart({
      label: level ? "Rarity of each head over time" : "Value of each head over time",
      series: heads.map((x, i) => ({ label: x.name, title: x.words, colour: `h${i}`, dash: dashes[i] })),
      x: (s) => clock(s * 1000),
      y: level ? (v) => (v === 0 ? "always" : `1 in ${shortPower(v)}`) : compact,
      xSteps: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600],
      ySteps: level ? [1, 2, 3, 5] : undefined,
      read: level ? (v) => odds(10 ** -v) : (v) => compact(v),
      range: (low, high) => (level ? [0, Math.max(4, Math.ceil(high))] : [Math.min(0, low), high > low ? high * 1.05 : low + 1]),
      side: "right",
      unit: level ? "higher is rarer" : "raw accumulators, units differ by head",
    });
    this.kind = mode;
  }

  switchChart() {
    this.makeChart(this.mode.value);
    this.chartBox.replaceChildren(this.chart.el);
    this.plot();
  }

  plot() {
    const window = this.heatmap.window();
    if (!window) return;
    const frames = this.model.frames.filter((f) => f.ms >= window[0] - 2000 && f.levels.length);
    const x = frames.map((f) => f.ms / 1000);
    const value = this.kind === "levels" ? (f, k) => -Math.log10(Math.max(f.levels[k], 1e-12)) : (f, k) => f.heads[k];
    this.chart.set([x, ...this.app.meta.heads.map((_, k) => frames.map((f) => value(f, k)))], [window[0] / 1000, window[1] / 1000]);
  }

  // -- keys ---------------------------------------------------------------------------------------------------------------

  key(e) {
    const acts = {
      " ": () => this.toggle(),
      "+": () => this.zoom(-1),
      "=": () => this.zoom(-1),
      "-": () => this.zoom(1),
      "[": () => this.heatmap.zoomPrice(-1),
      "]": () => this.heatmap.zoomPrice(1),
    };
    acts[e.key]?.();
    return e.key in acts;
  }

  zoom(by) {
    this.heatmap.zoomTime(by);
    this.stretchWords();
    this.heatmap.paint();
    this.plot();
  }

  stretchWords() {
    const columns = this.heatmap.columns ?? 240;
    const seconds = (columns * this.heatmap.columnMs) / 1000;
    text(this.stretch, seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);
  }

  scaleWords() {
    const ends = this.heatmap.legend();
    if (!ends) return;
    if (!this.ends) {
      this.ends = [h("span", { class: "n" }), h("span", { class: "n" })];
      this.scale.append(this.ends[0], h("i", { class: "ramp", role: "presentation" }), this.ends[1]);
      this.scale.title = "Resting size at a price, logarithmic";
    }
    text(this.ends[0], ends[0]);
    text(this.ends[1], ends[1]);
    this.stretchWords();
  }

  toggle() {
    this.paused = !this.paused;
    attr(this.pause, "aria-pressed", String(this.paused));
    text(this.pause, this.paused ? "Go on" : "Pause");
    if (!this.paused) this.catchUp();
    if (this.model.last) this.state(this.model.last);
    this.app.say(this.paused ? "paused" : "goes on");
  }

  /** The model went on during the pause; the picture is made anew from it. */
  catchUp() {
    this.heatmap.clear();
    if (this.model.last) this.heatmap.push(this.model.frames, this.model.decimals);
    this.draw();
  }
}

function split(driver) {
  const at = driver.indexOf(": ");
  return at < 0 ? [driver, ""] : [driver.slice(0, at), driver.slice(at + 2)];
}

const capital = (s) => s.charAt(0).toUpperCase() + s.slice(1);

function shortPower(v) {
  return v < 3 ? String(Math.round(10 ** v)) : `10${String(Math.round(v)).replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])}`;
}
