// The order book over time: resting size as colour, trades as bubbles, best prices as lines.
//
// Columns of equal time are painted once into a ring (one pixel a cell) that drawImage stretches; a new frame paints one
// column. Prices that leave the window, another zoom or theme paint the ring anew from the frames kept.

import { palette, onTheme } from "./colour.js";
import { clock, compact } from "./fmt.js";
import { h } from "./dom.js";

const AXIS_W = 70;
const AXIS_H = 20;
const STRIP_H = 7;
const CELL_W = 3;
const KEPT_FRAMES = 2400;
const KEPT_TRADES = 6000;
export const ZOOMS_MS = [25, 50, 100, 200, 500, 1000, 2000];

export class Heatmap {
  /** `label` is for screen readers; `fixed` shows one stretch of time (replay) instead of following the newest frame. */
  constructor({ label, fixed = false, onHover = null }) {
    this.fixed = fixed;
    this.onHover = onHover;
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.tip = h("div", { class: "tip", hidden: true });
    this.el = h("div", { class: "heatmap" }, this.canvas, this.tip);
    this.context = this.canvas.getContext("2d");
    this.ring = document.createElement("canvas");
    this.ringContext = this.ring.getContext("2d");
    this.columnMs = 100;
    this.priceZoom = 1;
    this.cursorMs = null;
    this.markMs = null;
    this.pointer = null;
    this.visible = false;
    this.clear();
    this.canvas.addEventListener("pointermove", (e) => this.point(e.offsetX, e.offsetY));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.resize()).observe(this.el);
    onTheme(() => this.repaint());
  }

  clear() {
    this.frames = [];
    this.trades = [];
    this.centre = null;
    this.rowPx = 0;
    this.low = this.high = 0;
    this.end = null;
    this.decimals = null;
    this.stale = true;
    this.wake();
  }

  /** Frames, oldest first; decimals say how prices and sizes are written. */
  push(frames, decimals) {
    this.decimals = decimals;
    for (const frame of frames) {
      const last = this.frames[this.frames.length - 1];
      if (last && frame.ms < last.ms) this.clear();
      this.frames.push(frame);
      for (const trade of frame.trades) this.trades.push(trade);
    }
    if (this.frames.length > KEPT_FRAMES) this.frames.splice(0, this.frames.length - KEPT_FRAMES);
    if (this.trades.length > KEPT_TRADES) this.trades.splice(0, this.trades.length - KEPT_TRADES);
    this.decimals = decimals;
    this.pushed = (this.pushed ?? 0) + 1;
    if (this.pushed < 4 || this.pushed % 60 === 0) this.suit();
    if (this.fixed || frames.length > 8) this.stale = true;
    else this.follow(frames);
    this.wake();
  }

  /** Columns as long as frames are apart, until somebody zooms: a replay at eight times the speed has longer ones. */
  suit() {
    if (this.zoomed || this.fixed || this.frames.length < 3) return;
    const apart = this.frames.slice(-60).map((f, i, all) => f.ms - (all[i - 1]?.ms ?? f.ms)).slice(1).sort((a, b) => a - b);
    const wanted = Math.max(100, apart[apart.length >> 1] * 0.9);
    const suits = ZOOMS_MS.find((z) => z >= wanted) ?? ZOOMS_MS[ZOOMS_MS.length - 1];
    if (suits === this.columnMs) return;
    this.columnMs = suits;
    this.rowPx = 0;
    this.repaint();
  }

  zoomTime(by) {
    this.zoomed = true;
    this.rowPx = 0;
    const at = ZOOMS_MS.indexOf(this.columnMs);
    this.columnMs = ZOOMS_MS[Math.min(ZOOMS_MS.length - 1, Math.max(0, at + by))];
    this.repaint();
  }

  zoomPrice(by) {
    this.priceZoom = Math.min(8, Math.max(0.25, this.priceZoom * 2 ** by));
    this.rowPx = 0;
    this.repaint();
  }

  repaint() {
    this.stale = true;
    this.wake();
  }

  /** First and last moment shown, ms. */
  window() {
    if (this.end === null) return null;
    return [(this.end - this.columns + 1) * this.columnMs, (this.end + 1) * this.columnMs];
  }

  // -- sizes ----------------------------------------------------------------------------------------------------------

  resize() {
    const { width, height } = this.el.getBoundingClientRect();
    this.visible = width > 0 && height > 0;
    if (!this.visible) return;
    const ratio = window.devicePixelRatio || 1;
    this.width = Math.floor(width);
    this.height = Math.floor(height);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.plotW = this.width - AXIS_W;
    this.plotH = this.height - AXIS_H - 2 * STRIP_H - 2;
    this.columns = Math.max(20, Math.floor(this.plotW / CELL_W));
    this.rows = 2 * Math.max(8, Math.floor(this.plotH / 14));
    this.stale = true;
    this.paint();
  }

  wake() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.visible) this.paint();
    });
  }

  // -- the ring -------------------------------------------------------------------------------------------------------

  /** The price window: so many units a row that the levels, or the way of the price, fill most of the height. */
  fit() {
    const from = this.fixed ? -Infinity : this.window()[0];
    const seen = this.frames.filter((f) => f.ms >= from);
    const some = seen.filter((_, i) => i % Math.ceil(seen.length / 60) === 0 || i === seen.length - 1);
    const spans = some.filter((f) => f.bids.length && f.asks.length).map(span).sort((a, b) => a - b);
    const step = Math.max(1, this.decimals?.px.step || 1);
    const middle = spans.length ? spans[spans.length >> 1] : 40 * step;
    const mids = some.map(middleOf).filter((m) => m !== null);
    const moved = mids.length ? Math.max(...mids) - Math.min(...mids) : 0;
    const wanted = Math.max(middle, moved + middle / 2) / (this.rows * 0.92) / this.priceZoom;
    this.rowPx = step * nice(Math.max(1, wanted / step));
    const mid = this.fixed && some.length ? middleOf(some[some.length >> 1]) : middleOf(this.frames[this.frames.length - 1]);
    if (mid !== null) this.centre = mid;
  }

  /** Ends of the logarithmic colour scale: percentiles of the sizes kept. */
  scale() {
    const sizes = [];
    const every = Math.ceil(this.frames.length / 80);
    for (let i = 0; i < this.frames.length; i += every) {
      for (const side of [this.frames[i].bids, this.frames[i].asks]) for (let k = 1; k < side.length; k += 2) sizes.push(side[k]);
    }
    sizes.sort((a, b) => a - b);
    const at = (q) => Math.max(1, sizes[Math.floor(q * (sizes.length - 1))] ?? 1);
    this.low = at(0.05);
    this.high = Math.max(at(0.995), this.low * 8);
    this.bubble = Math.max(1, quantile([...this.gathered()].map((t) => t.qty), 0.97));
    this.scaled = this.frames.length;
  }

  rebuild() {
    this.stale = false;
    if (this.frames.length === 0) return;
    const last = this.frames[this.frames.length - 1].ms;
    if (this.fixed) {
      const first = this.frames[0].ms;
      this.columnMs = Math.max(1, (last - first) / (this.columns - 1));
    }
    this.end = Math.floor(last / this.columnMs);
    if (!this.rowPx) this.fit();
    const mid = middleOf(this.frames[this.frames.length - 1]);
    if (!this.fixed && mid !== null) this.centre = mid;
    if (this.centre === null) this.centre = this.trades[this.trades.length - 1]?.px ?? 0;
    this.centre = Math.round(this.centre / this.rowPx) * this.rowPx;
    this.scale();
    this.ring.width = this.columns;
    this.ring.height = this.rows;
    this.column = this.ringContext.createImageData(1, this.rows);
    this.cells = new Uint32Array(this.column.data.buffer);
    this.sizes = new Float64Array(this.rows);
    this.shown = new Array(this.columns).fill(null);
    this.ringContext.clearRect(0, 0, this.columns, this.rows);
    this.fill();
  }

  /** Every column from the frame that held at its end. */
  fill() {
    let i = 0;
    let held = null;
    for (let c = this.end - this.columns + 1; c <= this.end; c++) {
      while (i < this.frames.length && this.frames[i].ms < (c + 1) * this.columnMs) held = this.frames[i++];
      if (held) this.paintColumn(c, held);
    }
  }

  follow(frames) {
    for (const frame of frames) {
      if (this.stale || this.end === null || !this.shown) {
        this.stale = true;
        return;
      }
      const mid = middleOf(frame);
      if (mid !== null && Math.abs(mid - this.centre) > this.rows * this.rowPx * 0.3) this.stale = true;
      if (this.frames.length - this.scaled > 400) this.stale = true;
      const c = Math.floor(frame.ms / this.columnMs);
      if (c - this.end > this.columns) this.stale = true;
      if (this.stale) return;
      const before = this.shown[mod(this.end, this.columns)];
      for (let gap = this.end + 1; gap < c; gap++) this.paintColumn(gap, before);
      this.end = Math.max(this.end, c);
      this.paintColumn(this.end, frame);
    }
  }

  /** A row holds the prices from just above the next lower row's up to its own. */
  row(px) {
    return Math.floor(this.rows / 2 - (px - this.centre) / this.rowPx);
  }

  paintColumn(c, frame) {
    const slot = mod(c, this.columns);
    this.shown[slot] = frame;
    this.sizes.fill(0);
    this.cells.fill(0);
    if (frame) {
      for (const side of [frame.bids, frame.asks]) {
        for (let k = 0; k < side.length; k += 2) {
          const row = this.row(side[k]);
          if (row >= 0 && row < this.rows) this.sizes[row] += side[k + 1];
        }
      }
      const colours = palette().scale;
      const span = Math.log(this.high / this.low);
      for (let row = 0; row < this.rows; row++) {
        if (this.sizes[row] <= 0) continue;
        const x = Math.log(Math.max(1, this.sizes[row] / this.low)) / span;
        this.cells[row] = colours[Math.floor(14 + 241 * Math.min(1, x) ** 1.6)];
      }
    }
    this.ringContext.putImageData(this.column, slot, 0);
  }

  // -- drawing --------------------------------------------------------------------------------------------------------

  paint() {
    if (this.stale) this.rebuild();
    const c = this.context;
    const p = palette();
    c.clearRect(0, 0, this.width, this.height);
    c.fillStyle = p.sunk;
    c.fillRect(0, 0, this.plotW, this.plotH);
    if (this.frames.length === 0 || !this.shown) return;
    this.blit(c);
    this.grid(c, p);
    c.save();
    c.beginPath();
    c.rect(0, 0, this.plotW, this.plotH);
    c.clip();
    this.lines(c, p);
    this.bubbles(c, p);
    c.restore();
    this.strips(c, p);
    this.tags(c, p);
    this.cursors(c, p);
    this.hover(c, p);
  }

  blit(c) {
    const w = this.plotW / this.columns;
    const first = mod(this.end + 1, this.columns);
    const left = this.columns - first;
    c.imageSmoothingEnabled = false;
    c.drawImage(this.ring, first, 0, left, this.rows, 0, 0, left * w, this.plotH);
    if (first) c.drawImage(this.ring, 0, 0, first, this.rows, left * w, 0, first * w, this.plotH);
  }

  xOf(ms) {
    const [from, to] = this.window();
    return ((ms - from) / (to - from)) * this.plotW;
  }

  yOf(px) {
    return (this.rows / 2 - (px - this.centre) / this.rowPx) * (this.plotH / this.rows);
  }

  grid(c, p) {
    const [from, to] = this.window();
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "middle";
    c.fillStyle = p.muted;
    c.strokeStyle = p.line;
    c.lineWidth = 1;
    const step = niceTime(((to - from) / this.plotW) * 110);
    c.textAlign = "center";
    for (let t = Math.ceil(from / step) * step; t < to; t += step) {
      const x = Math.round(this.xOf(t)) + 0.5;
      line(c, x, this.plotH + 2 * STRIP_H + 2, x, this.plotH + 2 * STRIP_H + 6);
      if (x > 28 && x < this.plotW - 20) c.fillText(clock(t, step < 1000 ? 1 : 0), x, this.height - 7);
    }
    const unit = this.rowPx * nice(Math.max(1, (46 * this.rows) / this.plotH));
    const top = this.centre + (this.rows / 2) * this.rowPx;
    const bottom = this.centre - (this.rows / 2) * this.rowPx;
    c.textAlign = "left";
    for (let px = Math.ceil(bottom / unit) * unit; px <= top; px += unit) {
      const y = Math.round(this.yOf(px - this.rowPx / 2)) + 0.5;
      if (y < 8 || y > this.plotH - 8) continue;
      line(c, this.plotW, y, this.plotW + 4, y);
      c.fillText(this.decimals.px.text(px), this.plotW + 7, y, AXIS_W - 9);
    }
  }

  /** Best bid and ask as steps, with a halo so that they stand out from any size. */
  lines(c, p) {
    const w = this.plotW / this.columns;
    for (const [side, colour] of [["bids", p.bid], ["asks", p.ask]]) {
      c.beginPath();
      let open = false;
      for (let k = 0; k < this.columns; k++) {
        const frame = this.shown[mod(this.end - this.columns + 1 + k, this.columns)];
        const px = frame?.[side][0];
        if (px === undefined) {
          open = false;
          continue;
        }
        const y = this.yOf(px - this.rowPx / 2);
        if (open) c.lineTo(k * w, y);
        else c.moveTo(k * w, y);
        c.lineTo((k + 1) * w, y);
        open = true;
      }
      c.lineJoin = "round";
      c.strokeStyle = p.sunk;
      c.lineWidth = 4;
      c.stroke();
      c.strokeStyle = colour;
      c.lineWidth = 1.75;
      c.stroke();
    }
  }

  /** Area as the size traded. Bought: filled. Sold: a ring; so they differ without colour. */
  bubbles(c, p) {
    for (const trade of this.gathered()) {
      const radius = 1.5 + 6 * Math.sqrt(Math.min(1.5, trade.qty / this.bubble));
      c.beginPath();
      c.arc(this.xOf(trade.ms), this.yOf(trade.px - this.rowPx / 2), radius, 0, 2 * Math.PI);
      if (trade.side > 0) {
        c.globalAlpha = 0.72;
        c.fillStyle = p.bid;
        c.fill();
        c.globalAlpha = 1;
        c.lineWidth = 1;
        c.strokeStyle = p.sunk;
        c.stroke();
      } else {
        c.globalAlpha = 0.3;
        c.fillStyle = p.ask;
        c.fill();
        c.globalAlpha = 1;
        c.lineWidth = 1.75;
        c.strokeStyle = p.ask;
        c.stroke();
      }
    }
  }

  /** Trades in view; those of one side in one cell are one bubble. */
  gathered() {
    const [from, to] = this.window();
    const until = Math.min(to, this.cursorMs ?? to);
    const cells = new Map();
    for (const trade of this.trades) {
      if (trade.ms < from || trade.ms > until) continue;
      const key = `${Math.floor(trade.ms / this.columnMs / 2)} ${this.row(trade.px)} ${trade.side}`;
      const cell = cells.get(key);
      if (cell) cell.qty += trade.qty;
      else cells.set(key, { ...trade });
    }
    return cells.values();
  }

  /** Under the picture: the book's state as a pattern, and below it where heads were in alarm. */
  strips(c, p) {
    const w = this.plotW / this.columns;
    const y = this.plotH + 1;
    c.fillStyle = p.panel;
    c.fillRect(0, y, this.plotW, 2 * STRIP_H);
    for (let k = 0; k < this.columns; k++) {
      const frame = this.shown[mod(this.end - this.columns + 1 + k, this.columns)];
      if (!frame) continue;
      if (frame.state !== "live") {
        c.fillStyle = pattern(c, frame.state, p);
        c.fillRect(k * w, y, w + 0.5, STRIP_H);
      }
      if (frame.alert) {
        c.fillStyle = p.alarm;
        c.fillRect(k * w, y + STRIP_H + 1, w + 0.5, STRIP_H - 1);
      }
    }
    c.fillStyle = p.muted;
    c.font = "9px system-ui, sans-serif";
    c.textAlign = "left";
    c.fillText("state", this.plotW + 7, y + STRIP_H / 2 + 0.5);
    c.fillText("alarm", this.plotW + 7, y + STRIP_H * 1.5 + 2.5);
  }

  /** The newest best prices on the axis. */
  tags(c, p) {
    const frame = this.fixed ? this.at(this.cursorMs ?? Infinity) : this.frames[this.frames.length - 1];
    if (!frame) return;
    let bidY = frame.bids.length ? this.yOf(frame.bids[0] - this.rowPx / 2) : null;
    let askY = frame.asks.length ? this.yOf(frame.asks[0] - this.rowPx / 2) : null;
    if (bidY !== null && askY !== null && bidY - askY < 16) {
      const middle = (bidY + askY) / 2;
      [askY, bidY] = [middle - 8, middle + 8];
    }
    c.font = "600 11px system-ui, sans-serif";
    for (const [y, px, colour] of [[askY, frame.asks[0], p.ask], [bidY, frame.bids[0], p.bid]]) {
      if (y === null || y < -8 || y > this.plotH + 8) continue;
      c.fillStyle = colour;
      c.fillRect(this.plotW + 2, y - 8, AXIS_W - 2, 16);
      c.fillStyle = p.bg;
      c.fillText(this.decimals.px.text(px), this.plotW + 7, y + 0.5, AXIS_W - 9);
    }
  }

  cursors(c, p) {
    if (this.markMs !== null) {
      const x = Math.round(this.xOf(this.markMs)) + 0.5;
      c.setLineDash([4, 3]);
      c.strokeStyle = p.alarm;
      c.lineWidth = 1.5;
      line(c, x, 0, x, this.plotH);
      c.setLineDash([]);
    }
    if (this.cursorMs === null) return;
    const x = Math.round(this.xOf(this.cursorMs)) + 0.5;
    c.fillStyle = p.sunk;
    c.globalAlpha = 0.68;
    c.fillRect(x, 0, Math.max(0, this.plotW - x), this.plotH);
    c.globalAlpha = 1;
    c.strokeStyle = p.text;
    c.lineWidth = 1.5;
    line(c, x, 0, x, this.plotH);
  }

  // -- reading --------------------------------------------------------------------------------------------------------

  /** The frame that held at a moment. */
  at(ms) {
    let low = 0;
    let high = this.frames.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.frames[middle].ms <= ms) low = middle + 1;
      else high = middle;
    }
    return this.frames[low - 1] ?? null;
  }

  point(x, y) {
    this.pointer = x === null || x > this.plotW || y > this.plotH ? null : { x, y };
    this.tip.hidden = this.pointer === null;
    this.wake();
  }

  hover(c, p) {
    if (!this.pointer) return;
    const { x, y } = this.pointer;
    const k = Math.min(this.columns - 1, Math.floor((x / this.plotW) * this.columns));
    const frame = this.shown[mod(this.end - this.columns + 1 + k, this.columns)];
    c.strokeStyle = p.muted;
    c.lineWidth = 1;
    c.setLineDash([2, 2]);
    line(c, Math.round(x) + 0.5, 0, Math.round(x) + 0.5, this.plotH);
    line(c, 0, Math.round(y) + 0.5, this.plotW, Math.round(y) + 0.5);
    c.setLineDash([]);
    if (!frame) {
      this.tip.hidden = true;
      return;
    }
    this.read(frame, x, y);
  }

  read(frame, x, y) {
    const row = Math.floor((y / this.plotH) * this.rows);
    const from = this.centre + (this.rows / 2 - row - 1) * this.rowPx;
    const to = from + this.rowPx;
    let size = 0;
    let side = "";
    for (const name of ["bids", "asks"]) {
      for (let i = 0; i < frame[name].length; i += 2) {
        if (this.row(frame[name][i]) !== row) continue;
        size += frame[name][i + 1];
        side = name === "bids" ? "bid" : "ask";
      }
    }
    const { px, qty } = this.decimals;
    const traded = this.traded(frame.ms, row);
    const price = this.rowPx > px.step ? `${px.text(from + px.step)} … ${px.text(to)}` : px.text(to);
    this.tip.replaceChildren(
      h("strong", { text: price }),
      h("span", { text: size ? `${qty.grouped(size)} ${side}` : "no size" }),
      h("span", { class: "muted", text: `${clock(frame.ms, 3)} UTC` }),
      ...(traded ? [h("span", { text: `traded ${qty.grouped(traded)}` })] : []),
      ...(frame.state === "live" ? [] : [h("span", { text: `book ${frame.state}` })]),
    );
    this.tip.hidden = false;
    const w = this.tip.offsetWidth;
    this.tip.style.left = `${x + w + 24 > this.plotW ? x - w - 12 : x + 14}px`;
    this.tip.style.top = `${Math.max(4, Math.min(this.plotH - 84, y - 30))}px`;
    this.onHover?.(frame);
  }

  /** Size traded in the cell under the pointer. */
  traded(ms, row) {
    const at = Math.floor(ms / this.columnMs);
    let sum = 0;
    for (const t of this.trades) if (Math.floor(t.ms / this.columnMs) === at && this.row(t.px) === row) sum += t.qty;
    return sum;
  }

  /** The colour scale in words, for a legend. */
  legend() {
    if (!this.decimals || !this.high) return null;
    const unit = 10 ** this.decimals.qty.exp;
    return [compact(this.low * unit), compact(this.high * unit)];
  }
}

const mod = (a, b) => ((a % b) + b) % b;

function line(c, x0, y0, x1, y1) {
  c.beginPath();
  c.moveTo(x0, y0);
  c.lineTo(x1, y1);
  c.stroke();
}

function span(frame) {
  return frame.asks[frame.asks.length - 2] - frame.bids[frame.bids.length - 2];
}

function middleOf(frame) {
  if (!frame) return null;
  const bid = frame.bids[0];
  const ask = frame.asks[0];
  if (bid === undefined && ask === undefined) return null;
  return bid === undefined ? ask : ask === undefined ? bid : (bid + ask) / 2;
}

function quantile(values, q) {
  const sorted = values.slice().sort((a, b) => a - b);
  return sorted[Math.floor(q * (sorted.length - 1))] ?? 1;
}

/** 1, 2, 5, 10, 20, ... not below n. */
function nice(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  for (const m of [1, 2, 5, 10]) if (m * power >= n * 0.999) return m * power;
  return 10 * power;
}

function niceTime(ms) {
  for (const step of [100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000]) {
    if (step >= ms) return step;
  }
  return 600_000;
}

const patterns = new Map();

/** Stale: strokes one way. Anything worse: crossed strokes. */
function pattern(c, state, p) {
  const key = `${p.theme} ${state}`;
  if (patterns.has(key)) return patterns.get(key);
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const t = tile.getContext("2d");
  t.strokeStyle = state === "stale" || state === "syncing" ? p.warn : p.alarm;
  t.lineWidth = 1.5;
  const strokes = [[0, 6, 6, 0], [-3, 3, 3, -3], [3, 9, 9, 3]];
  for (const [x0, y0, x1, y1] of strokes) line(t, x0, y0, x1, y1);
  if (state !== "stale" && state !== "syncing") for (const [x0, y0, x1, y1] of strokes) line(t, 6 - x0, y0, 6 - x1, y1);
  const made = c.createPattern(tile, "repeat");
  patterns.set(key, made);
  return made;
}
