// The hardware from its recorded reports: size, speed, and that it computes what the software computes.

import { h, table, panel } from "./dom.js";
import { count, compact } from "./fmt.js";
import { get } from "./net.js";

const CORE = [
  { name: "core" },
  { name: "latency", class: "n" },
  { name: "cycles", class: "n" },
  { name: "interval", class: "n", title: "cycles from one row to the next" },
  { name: "Fmax, by seed", title: "median, and each seed of the placer, MHz" },
  { name: "rows/s", class: "n", title: "Fmax over interval" },
  { name: "look-up tables", class: "use" },
  { name: "registers", class: "use" },
  { name: "multipliers", class: "use" },
  { name: "memories", class: "use" },
  { name: "US+ LUT", class: "n", title: "UltraScale+: synthesis estimate, no timing" },
  { name: "weights" },
];
const EQUAL = [
  { name: "core" },
  { name: "weights" },
  { name: "vectors", class: "n" },
  { name: "differences", class: "n" },
  { name: "result" },
  { name: "cycles", class: "n" },
  { name: "vectors/s", class: "n", title: "of the simulation" },
  { name: "simulator" },
  { name: "date" },
];

export class HardwarePage {
  constructor(app) {
    this.app = app;
    this.el = h("div", { class: "page hardware" });
    this.loaded = false;
  }

  async open() {
    if (this.loaded) return;
    this.loaded = true;
    try {
      this.show(await get("/api/hardware"));
    } catch (error) {
      this.loaded = false;
      this.el.replaceChildren(h("p", { class: "empty", text: `The reports were not loaded: ${error.message}` }));
    }
  }

  show(report) {
    this.el.replaceChildren(
      panel(`Place and route, ${report.device.name}`, this.cores(report), h("p", { class: "note muted", text: `Timing of nextpnr from register to register; no silicon was measured, no ports, MAC or PCS. Of the device: ${count(report.device.comb)} look-up tables, ${count(report.device.ff)} registers, ${report.device.dsp} multipliers, ${report.device.bram} memories.` })),
      panel("Software = RTL", this.equality(report.equality)),
      h("div", { class: "cards" }, this.board(report.board, report.device), this.rival(report), this.tools(report)),
    );
  }

  cores({ cores, device }) {
    const t = table(CORE, "Cores");
    for (const c of cores) t.body.append(coreRow(c, device));
    if (cores.length === 0) t.body.append(h("tr", {}, h("td", { colspan: CORE.length, class: "empty", text: "No report is recorded: python -m hdl.record writes them." })));
    return h("div", { class: "scroll" }, t.el);
  }

  equality(rows) {
    const t = table(EQUAL, "Vectors through software and RTL");
    for (const r of rows) {
      const same = r.differences === 0;
      t.body.append(row(EQUAL, [r.core, r.model ?? r.weights_hash, count(r.vectors), count(r.differences), same ? "● equal" : "✕ differs", String(r.latency_cycles), compact(r.vectors_per_second), r.simulator, r.date]));
      t.body.lastElementChild.children[4].className = same ? "good" : "bad";
    }
    return h("div", { class: "scroll" }, t.el);
  }

  board(b, device) {
    if (!b?.board) return panel("Board", h("p", { class: "empty", text: "No board was routed: python -m hdl.board makes a bitstream." }));
    return panel("Board", facts([["board", b.board], ["heads", b.heads.join(", ")], ["clock", `${b.clock_mhz} MHz, would reach ${b.reached_mhz} MHz`], ["look-up tables", share(b.comb, device.comb)], ["registers", share(b.ff, device.ff)], ["serial port", `${count(b.baud)} baud`], ["bitstream", `${compact(b.bitstream_bytes)}B`]]));
  }

  rival({ rival, cores }) {
    const own = cores.find((c) => c.name.startsWith("exposure, digit"));
    if (!rival || !own) return panel("Against another generator", h("p", { class: "empty", text: "Not recorded: python -m benchmarks.rivals_rtl." }));
    return panel(`Against ${rival.name}`, facts([["the same head", "same weights, same synthesis, same adder cells"], ["latency", `${own.latency_ns} ns here, ${rival.latency_ns} ns there: ${(rival.latency_ns / own.latency_ns).toFixed(2)} times`], ["look-up tables", `${count(own.comb)} here, ${count(rival.comb)} there: ${(rival.comb / own.comb).toFixed(2)} times`], ["registers", `${count(own.ff)} here, ${count(rival.ff)} there`], ["its best beyond", `cutoff ${rival.beyond.cutoff}: ${rival.beyond.latency_ns} ns, ${count(rival.beyond.comb)} look-up tables`], ["recorded", `${rival.date}, latency cutoff ${rival.cutoff}, best of 1 to 4`]]));
  }

  tools({ cores }) {
    const c = cores[0];
    if (!c) return panel("Tools", h("p", { class: "empty", text: "–" }));
    return panel("Tools", facts([...Object.entries(c.tools), ["recorded", c.date]]));
  }
}

function row(columns, values) {
  return h("tr", {}, ...columns.map((c, i) => (values[i] instanceof Node ? h("td", { class: c.class }, values[i]) : h("td", { class: c.class, text: values[i] }))));
}

function coreRow(c, device) {
  const use = (n, of) => {
    const part = n / of;
    const bar = h("i", { class: "fill" });
    bar.style.transform = `scaleX(${Math.min(1, part).toFixed(3)})`;
    return h("span", { class: "using" }, h("span", { class: "n", text: count(n) }), h("span", { class: "meter", role: "presentation" }, bar), h("span", { class: "muted n", text: n ? `${(part * 100).toFixed(part < 0.1 ? 1 : 0)} %` : "" }));
  };
  return row(CORE, [
    c.name, `${c.latency_ns.toFixed(1)} ns`, String(c.latency_cycles), String(c.initiation_interval), `${c.median_mhz.toFixed(0)} MHz [${c.mhz.map((m) => m.toFixed(0)).join(", ")}]`, compact((c.median_mhz * 1e6) / c.initiation_interval),
    use(c.comb, device.comb), use(c.ff, device.ff), use(c.dsp, device.dsp), use(c.bram, device.bram),
    c.ultrascale_plus ? count(c.ultrascale_plus.lut) : "–", c.model ?? "loadable",
  ]);
}

function facts(pairs) {
  return h("dl", { class: "facts" }, ...pairs.map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd", { text: value }))));
}

function share(n, of) {
  return `${count(n)}, ${((n / of) * 100).toFixed(1)} %`;
}
