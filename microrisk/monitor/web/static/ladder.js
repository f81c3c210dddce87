// The book by price: asks above, bids below, sizes as bars.

import { h, text } from "./dom.js";

export class Ladder {
  constructor(levels) {
    this.levels = levels;
    this.asks = Array.from({ length: levels }, () => row("ask"));
    this.bids = Array.from({ length: levels }, () => row("bid"));
    this.gap = h("div", { class: "spread" });
    this.el = h(
      "div",
      { class: "ladder", role: "group", "aria-label": "Order book by price" },
      h("div", { class: "rung head" }, h("span", { text: "price" }), h("span", { text: "size" })),
      ...this.asks.map((r) => r.el).reverse(),
      this.gap,
      ...this.bids.map((r) => r.el),
    );
  }

  show(frame, decimals) {
    let most = 1;
    for (const side of [frame.bids, frame.asks]) {
      for (let i = 0; i < Math.min(this.levels, side.length / 2); i++) most = Math.max(most, side[2 * i + 1]);
    }
    this.fill(this.asks, frame.asks, most, decimals);
    this.fill(this.bids, frame.bids, most, decimals);
    text(this.gap, spreadWords(frame, decimals));
  }

  fill(rows, side, most, decimals) {
    rows.forEach((row, i) => {
      const there = 2 * i < side.length;
      text(row.price, there ? decimals.px.grouped(side[2 * i]) : "");
      text(row.size, there ? decimals.qty.grouped(side[2 * i + 1], 4) : "");
      row.bar.style.transform = `scaleX(${there ? Math.sqrt(side[2 * i + 1] / most).toFixed(3) : 0})`;
    });
  }

  clear() {
    for (const row of [...this.asks, ...this.bids]) {
      text(row.price, "");
      text(row.size, "");
      row.bar.style.transform = "scaleX(0)";
    }
    text(this.gap, "");
  }
}

export function spreadWords(frame, decimals) {
  if (!frame.bids.length || !frame.asks.length) return "one side is empty";
  const spread = frame.asks[0] - frame.bids[0];
  if (spread < 0) return `crossed by ${decimals.px.text(-spread)}`;
  if (spread === 0) return "locked";
  return `spread ${decimals.px.text(spread)}`;
}

function row(side) {
  const price = h("span", { class: "price" });
  const size = h("span", { class: "size" });
  const bar = h("i", { class: "fill" });
  return { el: h("div", { class: `rung ${side}` }, bar, price, size), price, size, bar };
}
