// Line charts: uPlot where it is installed, else a small plot of our own with a notice. One interface for both.

import { palette, onTheme } from "./colour.js";
import { h, text } from "./dom.js";

export const hasUplot = () => typeof window.uPlot === "function";

/**
 * options: series [{label, colour: name in the palette, dash}], x and y: value -> text, range: [low, high] or null for y,
 * side of the y axis "left" | "right", label for screen readers.
 */
export class Chart {
  constructor(options) {
    this.options = options;
    this.host = h("div", { class: "plot", role: "img", "aria-label": options.label });
    this.values = options.series.map(() => h("span", { class: "value" }));
    this.el = h("div", { class: "chart" }, this.legend(), this.host);
    if (!hasUplot()) {
      this.el.append(h("p", { class: "notice", text: "uPlot is not installed: simple charts (see README)" }));
    }
    this.data = [[], ...options.series.map(() => [])];
    this.range = null;
    this.hovering = false;
    this.plot = null;
    new ResizeObserver(() => this.resize()).observe(this.host);
    onTheme(() => this.plot?.redraw(false));
  }

  legend() {
    const items = this.options.series.map((s, i) => {
      const sample = h("canvas", { width: 22, height: 8, "aria-hidden": "true" });
      const draw = () => sampleLine(sample, s);
      draw();
      onTheme(draw);
      return h("span", { class: "item", title: s.title }, sample, s.label, this.values[i]);
    });
    return h("div", { class: "legend" }, ...items, h("span", { class: "unit muted", text: this.options.unit ?? "" }));
  }

  /** data: [x, y1, y2, ...]; xRange fixes the window. */
  set(data, xRange = null) {
    this.data = data;
    this.xRange = xRange;
    if (!this.hovering) this.read(data[0].length - 1);
    if (!this.plot) return;
    this.plot.setData(data, false);
    const [from, to] = xRange ?? [data[0][0] ?? 0, data[0][data[0].length - 1] ?? 1];
    this.plot.setScale("x", { min: from, max: to === from ? from + 1 : to });
  }

  read(i) {
    this.options.series.forEach((_, k) => {
      const value = this.data[k + 1]?.[i];
      text(this.values[k], value === null || value === undefined ? "" : this.options.read(value));
    });
  }

  resize() {
    const { width, height } = this.host.getBoundingClientRect();
    if (width < 20 || height < 20) return;
    const size = { width: Math.floor(width), height: Math.floor(height) };
    if (this.plot) this.plot.setSize(size);
    else this.plot = hasUplot() ? this.uplot(size) : new LinePlot(this, size);
    this.set(this.data, this.xRange);
  }

  uplot(size) {
    const o = this.options;
    const axis = (more) => ({
      stroke: () => palette().muted,
      font: "11px system-ui, sans-serif",
      grid: { stroke: () => palette().line, width: 1 },
      ticks: { stroke: () => palette().line, width: 1, size: 4 },
      ...more,
    });
    const config = {
      ...size,
      legend: { show: false },
      padding: [6, o.side === "right" ? 0 : 26, 0, o.side === "right" ? 0 : 4],
      cursor: { y: false, points: { size: 5 }, drag: { x: false, y: false } },
      scales: { x: { time: false, auto: false }, y: { range: (_, low, high) => o.range?.(low, high) ?? [low, high] } },
      axes: [
        axis({ values: (_, all) => all.map((v) => o.x(v)), size: 22, space: 90, incrs: o.xSteps }),
        axis({ values: (_, all) => all.map((v) => o.y(v)), size: o.side === "right" ? 70 : 62, side: o.side === "right" ? 1 : 3, space: 28, incrs: o.ySteps }),
      ],
      series: [
        {},
        ...o.series.map((s) => ({
          label: s.label,
          stroke: () => palette()[s.colour],
          width: 1.5,
          dash: s.dash,
          points: { show: false },
          paths: o.stepped ? window.uPlot.paths.stepped({ align: -1 }) : undefined,
        })),
      ],
      hooks: {
        setCursor: [
          (u) => {
            const i = u.cursor.idx;
            this.hovering = i !== null && i !== undefined && u.cursor.left >= 0;
            this.read(this.hovering ? i : this.data[0].length - 1);
          },
        ],
      },
    };
    return new window.uPlot(config, this.data, this.host);
  }
}

function sampleLine(canvas, series) {
  const c = canvas.getContext("2d");
  c.clearRect(0, 0, canvas.width, canvas.height);
  c.strokeStyle = palette()[series.colour];
  c.lineWidth = 2;
  c.setLineDash(series.dash ?? []);
  c.beginPath();
  c.moveTo(0, 4);
  c.lineTo(22, 4);
  c.stroke();
}

/** What is drawn when uPlot is not there: lines, a frame, a few labels. */
class LinePlot {
  constructor(chart, size) {
    this.chart = chart;
    this.canvas = h("canvas");
    chart.host.append(this.canvas);
    this.x = { min: 0, max: 1 };
    this.setSize(size);
  }

  setSize({ width, height }) {
    const ratio = window.devicePixelRatio || 1;
    this.width = width;
    this.height = height;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  setData() {}

  setScale(_, range) {
    this.x = range;
    this.redraw();
  }

  redraw() {
    const c = this.canvas.getContext("2d");
    const o = this.chart.options;
    const p = palette();
    const [x, ...lines] = this.chart.data;
    const right = o.side === "right" ? 70 : 26;
    const box = { left: o.side === "right" ? 0 : 62, top: 6, right: this.width - right, bottom: this.height - 22 };
    c.clearRect(0, 0, this.width, this.height);
    const all = lines.flat().filter((v) => v !== null && v !== undefined);
    const found = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    const [low, high] = o.range?.(...found) ?? found;
    const toX = (v) => box.left + ((v - this.x.min) / (this.x.max - this.x.min || 1)) * (box.right - box.left);
    const toY = (v) => box.bottom - ((v - low) / (high - low || 1)) * (box.bottom - box.top);
    this.axes(c, p, o, box, [low, high], toY);
    c.save();
    c.beginPath();
    c.rect(box.left, box.top - 2, box.right - box.left, box.bottom - box.top + 4);
    c.clip();
    lines.forEach((ys, k) => this.line(c, p[o.series[k].colour], o.series[k].dash, x, ys, toX, toY));
    c.restore();
  }

  axes(c, p, o, box, [low, high], toY) {
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = p.muted;
    c.strokeStyle = p.line;
    c.lineWidth = 1;
    c.textBaseline = "middle";
    for (let i = 0; i <= 4; i++) {
      const v = low + ((high - low) * i) / 4;
      const y = Math.round(toY(v)) + 0.5;
      c.beginPath();
      c.moveTo(box.left, y);
      c.lineTo(box.right, y);
      c.stroke();
      c.textAlign = o.side === "right" ? "left" : "right";
      c.fillText(o.y(v), o.side === "right" ? box.right + 6 : box.left - 6, y);
    }
    c.textAlign = "center";
    for (let i = 1; i < 5; i++) {
      const v = this.x.min + ((this.x.max - this.x.min) * i) / 5;
      c.fillText(o.x(v), box.left + ((box.right - box.left) * i) / 5, this.height - 9);
    }
  }

  line(c, colour, dash, x, ys, toX, toY) {
    c.strokeStyle = colour;
    c.lineWidth = 1.5;
    c.setLineDash(dash ?? []);
    c.beginPath();
    let open = false;
    for (let i = 0; i < x.length; i++) {
      if (ys[i] === null || ys[i] === undefined) open = false;
      else if (open) c.lineTo(toX(x[i]), toY(ys[i]));
      else c.moveTo(toX(x[i]), toY(ys[i]));
      open = ys[i] !== null && ys[i] !== undefined;
    }
    c.stroke();
    c.setLineDash([]);
  }
}
