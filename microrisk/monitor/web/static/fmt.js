// Numbers as people read them; every width is stable because figures are tabular and units fixed.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const count = (n) => whole.format(n);

/** 1234567 -> "1.23 M", at least three digits. */
export function compact(n) {
  const size = Math.abs(n);
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit) return `${digits(n / limit, 3)} ${unit}`;
  }
  return size >= 100 || Number.isInteger(n) ? whole.format(n) : digits(n, 3);
}

export function digits(n, significant) {
  const before = n === 0 ? 1 : Math.floor(Math.log10(Math.abs(n))) + 1;
  return n.toFixed(Math.max(0, Math.min(6, significant - Math.max(1, before))));
}

/** Nanoseconds: "850 ns", "6.10 µs", "1.20 ms", "2.00 s". */
export function nanos(ns) {
  for (const [limit, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (ns >= limit) return `${digits(ns / limit, 3)} ${unit}`;
  }
  return `${Math.round(ns)} ns`;
}

export function millis(ms) {
  if (ms >= 120_000) return `${Math.round(ms / 60_000)} min`;
  return ms >= 1000 ? `${digits(ms / 1000, 3)} s` : `${Math.round(ms)} ms`;
}

/** How rare a tail probability is: "1 in 2,300"; frequent ones in per cent. */
export function odds(p) {
  if (p === null || p === undefined || !Number.isFinite(p)) return "–";
  if (p >= 0.1) return `${Math.round(p * 100)}\u00a0%`;
  if (p === 0) return "certain"; // a rule, not a head
  const n = 1 / Math.max(p, 1e-15);
  return `1\u00a0in\u00a0${n < 1e6 ? whole.format(Number(n.toPrecision(2))) : compact(n)}`;
}

const two = (n) => String(n).padStart(2, "0");

/** Time of day, UTC, with `places` decimals of a second. */
export function clock(ms, places = 0) {
  const d = new Date(ms);
  if (Number.isNaN(d.getTime())) return "–";
  const base = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
  return places ? `${base}.${String(Math.floor(d.getTime()) % 1000).padStart(3, "0").slice(0, places)}` : base;
}

export function day(ms) {
  return Number.isFinite(ms) ? new Date(ms).toISOString().slice(0, 10) : "–";
}

export function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
}

export function bytes(n) {
  return `${compact(n)}B`;
}

function gcd(a, b) {
  while (b) [a, b] = [b, a % b];
  return a;
}

/** Integers of 10 ** exp, and how many decimals they need: those of their common divisor. */
export class Decimals {
  constructor(exp) {
    this.exp = exp;
    this.step = 0;
    this.places = Math.max(0, -exp);
  }

  see(value) {
    const step = gcd(Math.abs(value), this.step);
    if (step === this.step || step === 0) return;
    this.step = step;
    let zeros = 0;
    for (let rest = step; rest % 10 === 0; rest /= 10) zeros += 1;
    this.places = Math.max(0, -this.exp - zeros);
  }

  text(value, most = 8) {
    return (value * 10 ** this.exp).toFixed(Math.min(this.places, most));
  }

  grouped(value, most = 8) {
    const places = Math.min(this.places, most);
    return (value * 10 ** this.exp).toLocaleString("en-US", {
      minimumFractionDigits: places,
      maximumFractionDigits: places,
    });
  }
}
