// The features of one frame as bars around zero, in steps of 1/16 of a normal deviation.

import { h, text } from "./dom.js";

const MOST = 8;

export class Features {
  constructor(features) {
    this.features = features;
    this.rows = features.map((f) => this.row(f));
    this.el = h("div", { class: "features", role: "list", "aria-label": "Features, in normal deviations" }, ...this.rows.map((r) => r.el));
  }

  row(f) {
    const bar = h("i", { class: "fill" });
    const value = h("span", { class: "value" });
    const name = h("span", { class: "name", text: f.name.replaceAll("_", " ") });
    const el = h("div", { class: "feature", role: "listitem", title: `${f.name} = ${f.formula}\nhigh: ${f.high}\nlow: ${f.low}` }, name, h("span", { class: "track" }, bar), value);
    return { el, bar, value };
  }

  show(codes, drivers) {
    const driving = new Set(drivers.map((d) => d.split(":")[0]));
    this.rows.forEach((row, i) => {
      const sigma = codes ? codes[i] / 16 : 0;
      const part = Math.min(1, Math.abs(sigma) / MOST) / 2;
      row.bar.style.transform = `translateX(${sigma < 0 ? -100 * part : 0}%) scaleX(${part.toFixed(4)})`;
      const size = Math.abs(sigma);
      row.el.dataset.size = size >= 3 ? "large" : size >= 2 ? "middle" : "";
      row.el.classList.toggle("drives", driving.has(this.features[i].name));
      text(row.value, codes ? `${sigma < 0 ? "−" : "+"}${size.toFixed(1)}` : "");
    });
  }
}
