// Everything at a glance: feeds, newest alerts, symbols that several venues have.

import { h, text, attr, show, Rows, table, cells, panel, stateChip } from "./dom.js";
import { bytes, clock, compact, count, duration, millis, nanos, odds } from "./fmt.js";
import { palette, onTheme } from "./colour.js";
import { Choice } from "./list.js";

const FEED = [
  { name: "state" },
  { name: "feed" },
  { name: "venue" },
  { name: "msg/s", class: "n", title: "messages a second" },
  { name: "messages", class: "n" },
  { name: "gaps", class: "n", title: "holes in the sequence numbers" },
  { name: "missing", class: "n", title: "messages that were never got" },
  { name: "recov.", class: "n", title: "messages got again after a hole" },
  { name: "malf.", class: "n", title: "messages that break their own format" },
  { name: "resync", class: "n", title: "books built anew from an image" },
  { name: "behind", class: "n", title: "messages held while a hole is open" },
  { name: "silent", class: "n", title: "since the last packet or message" },
  { name: "p50", class: "n", title: "receive to scored, half of the messages" },
  { name: "p99", class: "n", title: "receive to scored, 99 %" },
  { name: "p99.9", class: "n", title: "receive to scored, 99.9 %" },
  { name: "weight", title: "how far the source is believed at present" },
  { name: "why", class: "why" },
];
const ALERT = [
  { name: "time" },
  { name: "instrument" },
  { name: "head" },
  { name: "rarity", class: "n", title: "how often the head is this high in normal times" },
  { name: "drivers", class: "why" },
];
const SYMBOL = [
  { name: "symbol" },
  { name: "bid", class: "n" },
  { name: "" },
  { name: "ask", class: "n" },
  { name: "" },
  { name: "gap", class: "n", title: "largest distance between venues' mid prices, in 1/10,000" },
  { name: "market" },
  { name: "venues", class: "why" },
];

export class OverviewPage {
  constructor(app) {
    this.app = app;
    this.tiles = tiles();
    this.spark = h("canvas", { class: "spark", role: "img", "aria-label": "Rate over the last minutes" });
    this.tiles.rate.el.append(this.spark);
    const feeds = table(FEED, "Feeds");
    const alerts = table(ALERT, "Newest alerts");
    const symbols = table(SYMBOL, "Consolidated book");
    this.feeds = new Rows(feeds.body, feedRow);
    this.alerts = new Rows(alerts.body, alertRow);
    this.symbols = new Rows(symbols.body, symbolRow);
    this.choice = new Choice(this.alerts, { open: (id) => app.go("alerts", id) });
    this.noFeeds = empty("No feed is configured. Start with `microrisk monitor SOURCE ...` or name sources in feeds.toml.");
    this.noAlerts = empty("No alert so far. Levels of an instrument show on page 2; key 2.");
    this.noSymbols = empty("No symbol is traded at more than one of the venues configured.");
    this.el = h(
      "div",
      { class: "page overview" },
      h("div", { class: "tiles" }, ...Object.values(this.tiles).map((t) => t.el)),
      panel("Feeds", h("div", { class: "scroll" }, feeds.el, this.noFeeds)),
      panel("Newest alerts", h("div", { class: "scroll" }, alerts.el, this.noAlerts)),
      panel("Consolidated", h("div", { class: "scroll" }, symbols.el, this.noSymbols)),
    );
    app.link.on("overview", (m) => this.take(m));
    onTheme(() => this.draw());
  }

  open() {
    this.draw();
  }

  key(e) {
    return this.choice.press(e.key);
  }

  take({ overview: o, recent, consolidated }) {
    const live = o.feeds.filter((f) => f.state === "live").length;
    this.tiles.rate.set(compact(Math.round(o.rate)), `${compact(o.messages)} messages`);
    this.tiles.feeds.set(`${live} / ${o.feeds.length}`, live === o.feeds.length ? "all in sync" : worstWords(o.feeds));
    this.tiles.books.set(count(o.instruments), `${count(o.scored)} scored`);
    this.tiles.alerts.set(count(o.alerts), recent.length ? `last ${clock(recent[0].ts_ns / 1e6)}` : "none yet");
    this.tiles.model.set(o.model?.name ?? o.model ?? "–", `on ${o.backend ?? "–"}`);
    this.tiles.up.set(duration(o.uptime_s), o.journal ? `journal ${bytes(o.journal.bytes)}` : "");
    this.feeds.set(o.feeds, (f) => f.number);
    this.alerts.set(recent, (a) => a.id);
    this.symbols.set(consolidated, (s) => s.symbol);
    this.choice.mark();
    show(this.noFeeds, o.feeds.length === 0);
    show(this.noAlerts, recent.length === 0);
    show(this.noSymbols, consolidated.length === 0);
    this.draw();
  }

  draw() {
    sparkline(this.spark, this.app.rates.map((r) => r[1]));
  }
}

export function empty(words) {
  return h("p", { class: "empty", hidden: true, text: words });
}

function tiles() {
  const make = (title) => {
    const big = h("b");
    const small = h("span", { class: "muted" });
    const el = h("div", { class: "tile" }, h("span", { class: "title", text: title }), big, small);
    return {
      el,
      set(a, b) {
        text(big, a);
        text(small, b);
      },
    };
  };
  return {
    rate: make("messages a second"),
    feeds: make("feeds live"),
    books: make("books"),
    alerts: make("alerts"),
    model: make("model"),
    up: make("running for"),
  };
}

function worstWords(feeds) {
  const by = {};
  for (const f of feeds) if (f.state !== "live") by[f.state] = (by[f.state] ?? 0) + 1;
  return Object.entries(by).map(([s, n]) => `${n} ${s}`).join(", ");
}

function feedRow() {
  const td = cells(FEED);
  const chip = stateChip();
  const bar = h("i", { class: "fill" });
  const weight = h("span");
  td[0].append(chip.el);
  td[15].append(h("span", { class: "meter", role: "presentation" }, bar), weight);
  const el = h("tr", {}, ...td);
  return { el, update: (f) => updateFeed(el, td, chip, bar, weight, f) };
}

function updateFeed(el, td, chip, bar, weight, f) {
  chip.update(f.state);
  attr(el, "data-state", f.state);
  const l = f.latency;
  const time = (ns) => (l.count ? nanos(ns) : "–");
  const values = [
    null, f.name, f.venue, compact(Math.round(f.rate)), compact(f.messages), count(f.gaps), count(f.missing),
    compact(f.recovered), count(f.malformed), count(f.resyncs), count(f.behind), millis(f.silent_ms),
    time(l.p50), time(l.p99), time(l.p999), null, [f.why, ...f.reasons].filter(Boolean).join("; "),
  ];
  values.forEach((v, i) => v !== null && text(td[i], v));
  for (const i of [5, 6, 7, 8, 9, 10]) td[i].classList.toggle("zero", values[i] === "0");
  td[1].title = f.kind;
  td[6].classList.toggle("bad", f.missing > 0);
  td[10].classList.toggle("warn", f.behind > 0);
  td[16].title = values[16];
  bar.style.transform = `scaleX(${f.weight.toFixed(2)})`;
  text(weight, f.weight.toFixed(2));
}

function alertRow(a) {
  const td = cells(ALERT);
  const values = [clock(a.ts_ns / 1e6), a.instrument, a.head, odds(a.level), a.drivers.map((d) => d.split(": ").pop()).join(", ")];
  values.forEach((v, i) => text(td[i], v));
  td[4].title = a.drivers.join("\n");
  return { el: h("tr", { "data-key": a.id, class: "opens" }, ...td), update: () => {} };
}

function symbolRow() {
  const td = cells(SYMBOL);
  const el = h("tr", {}, ...td);
  return {
    el,
    update(s) {
      const market = s.crossed ? "✕ crossed" : s.locked ? "= locked" : "normal";
      const venues = s.venues.map((v) => `${v[0].split(".").pop()} ${v[1] === "live" ? "" : `${v[1]} `}${Number(v[2]).toFixed(2)}`).join(", ");
      const books = s.venues.map((v) => `${v[0]}  ${v[1]}  weight ${Number(v[2]).toFixed(2)}  ${v[3] || "–"} / ${v[5] || "–"}`).join("\n");
      [s.symbol, s.bid, s.bid_venue, s.ask, s.ask_venue, s.gap_bp === null ? "–" : `${s.gap_bp.toFixed(2)} bp`, market, venues].forEach((v, i) => text(td[i], v));
      td[6].classList.toggle("bad", s.crossed);
      td[6].classList.toggle("warn", s.locked && !s.crossed);
      td[7].title = books;
    },
  };
}

/** A small line under a number: from zero, so that its height means something. */
function sparkline(canvas, values) {
  const { width, height } = canvas.getBoundingClientRect();
  if (!width || values.length < 2) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  const most = Math.max(...values) * 1.1 || 1;
  const shown = values.slice(-180);
  const x = (i) => width - (shown.length - 1 - i) * (width / Math.max(30, shown.length - 1));
  const y = (v) => height - 1 - (v / most) * (height - 2);
  c.beginPath();
  shown.forEach((v, i) => (i ? c.lineTo(x(i), y(v)) : c.moveTo(x(i), y(v))));
  c.strokeStyle = palette().bid;
  c.lineWidth = 1.5;
  c.stroke();
  c.lineTo(width, height);
  c.lineTo(x(0), height);
  c.globalAlpha = 0.15;
  c.fillStyle = palette().bid;
  c.fill();
}
