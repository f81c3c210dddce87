// Where the time goes: stages with their percentiles, and how they are spread.

import { h, text, show, Rows, table, cells, panel, stateChip } from "./dom.js";
import { compact, nanos } from "./fmt.js";
import { Chart } from "./chart.js";
import { empty } from "./page_overview.js";

const BINS = 12;
const FIELDS = ["p50", "p99", "p999", "max"];
const NUMBERS = [
  { name: "count", class: "n" },
  { name: "p50", class: "n" },
  { name: "p99", class: "n" },
  { name: "p99.9", class: "n" },
  { name: "max", class: "n" },
];
const STAGE = [{ name: "stage" }, ...NUMBERS];
const FEED = [{ name: "feed" }, { name: "state" }, ...NUMBERS];
const DASHES = [undefined, [6, 3], [2, 2], [8, 3, 2, 3]];

export class LatencyPage {
  constructor(app) {
    this.app = app;
    const stages = table(STAGE, "Stages");
    const feeds = table(FEED, "Receive to scored, by feed");
    this.stages = new Rows(stages.body, () => numbersRow(STAGE, 1));
    this.feeds = new Rows(feeds.body, () => numbersRow(FEED, 2));
    this.none = empty("Nothing was measured yet: the first message starts it.");
    this.box = h("div", { class: "chart-box" });
    this.rate = h("span", { class: "muted" });
    this.el = h(
      "div",
      { class: "page latency" },
      panel("Stages", h("div", { class: "scroll" }, stages.el, this.none), h("p", { class: "note muted" }, "From the kernel's receive stamp. Messages are weighted, and time that a message waits in the socket counts (no coordinated omission). ", this.rate)),
      panel("Receive to scored, by feed", h("div", { class: "scroll" }, feeds.el)),
      panel("How the stages are spread", this.box),
    );
    this.el.lastElementChild.classList.add("spread");
    app.link.on("latency", (m) => this.take(m));
  }

  open() {}

  take({ latency, feeds }) {
    this.stages.set(latency.stages.map((s) => ({ key: s.name, lead: [s.name], stage: s })), (r) => r.key);
    this.feeds.set(feeds.map((f) => ({ key: f.name, lead: [f.name, f.state], stage: f.latency })), (r) => r.key);
    show(this.none, latency.stages.length === 0);
    text(this.rate, latency.rate ? `At ${compact(Math.round(latency.rate))} messages a second now.` : "");
    this.plot(latency.histogram);
  }

  /** Shares of messages in bins of equal ratio, so that a decade of nanoseconds is as wide as a decade of seconds. */
  plot(histograms) {
    const names = Object.keys(histograms).slice(0, 4);
    if (names.length === 0) return;
    if (names.join() !== this.plotted) {
      this.plotted = names.join();
      this.chart = this.makeChart(names);
      this.box.replaceChildren(this.chart.el);
    }
    const binned = names.map((n) => bin(histograms[n]));
    const all = binned.flatMap((b) => [...b.keys()]);
    const low = Math.floor(Math.min(...all) / BINS) * BINS;
    const high = Math.ceil((Math.max(...all) + 1) / BINS) * BINS;
    const x = [];
    for (let k = low; k <= high; k++) x.push(k / BINS);
    const shares = binned.map((b) => {
      const total = [...b.values()].reduce((a, v) => a + v, 0) || 1;
      return x.map((_, i) => {
        const share = ((b.get(low + i) ?? 0) / total) * 100;
        return share > 0 ? Math.log10(share) : null;
      });
    });
    this.chart.set([x, ...shares], [low / BINS, high / BINS]);
  }

  makeChart(names) {
    return new Chart({
      label: "Share of messages by time, both logarithmic",
      series: names.map((n, i) => ({ label: n.replaceAll("_", " to "), colour: `h${i}`, dash: DASHES[i] })),
      x: (v) => (Number.isInteger(Math.round(v * 1e6) / 1e6) ? nanos(10 ** v).replace(/\.0+ /, " ") : ""),
      xSteps: [1],
      y: (v) => `${10 ** v >= 1 ? Math.round(10 ** v) : (10 ** v).toFixed(Math.min(5, Math.ceil(-v)))} %`,
      ySteps: [1],
      read: (v) => `${(10 ** v).toPrecision(2)} %`,
      range: (low, high) => [Math.max(-5, Math.floor(low ?? -3)), Math.min(2, Math.ceil(high ?? 1))],
      side: "left",
      unit: "share of messages, both axes logarithmic",
      stepped: true,
    });
  }
}

function bin(histogram) {
  const out = new Map();
  for (const [upper, n] of histogram) {
    const k = Math.floor(Math.log10(Math.max(1, upper)) * BINS);
    out.set(k, (out.get(k) ?? 0) + n);
  }
  return out;
}

function numbersRow(columns, leading) {
  const td = cells(columns);
  const chip = leading > 1 ? stateChip() : null;
  if (chip) td[1].append(chip.el);
  return {
    el: h("tr", {}, ...td),
    update({ lead, stage }) {
      text(td[0], lead[0].replaceAll("_", " "));
      chip?.update(lead[1]);
      text(td[leading], compact(stage.count));
      FIELDS.forEach((f, i) => text(td[leading + 1 + i], stage.count ? nanos(stage[f]) : "–"));
    },
  };
}
