// The shell: pages by number and address, keys, state of the connection, theme, help.

import { Link, get } from "./net.js";
import { h, show, text, stateChip } from "./dom.js";
import { clock, compact, count, duration } from "./fmt.js";
import { OverviewPage } from "./page_overview.js";
import { InstrumentPage } from "./page_instrument.js";
import { AlertsPage } from "./page_alerts.js";
import { LatencyPage } from "./page_latency.js";
import { HardwarePage } from "./page_hardware.js";

const PAGES = [
  ["overview", "Overview", OverviewPage],
  ["instrument", "Instrument", InstrumentPage],
  ["alerts", "Alerts", AlertsPage],
  ["latency", "Latency", LatencyPage],
  ["hardware", "Hardware", HardwarePage],
];
const KEYS = [
  ["1 – 5", "pages: overview, instrument, alerts, latency, hardware"],
  ["/", "find an instrument"],
  ["j  k", "next, previous row"],
  ["Enter", "open the row"],
  ["Space", "pause and go on; in a replay: play and stop"],
  ["+  −", "instrument: shorter, longer stretch of time"],
  ["[  ]", "instrument: wider, narrower range of prices"],
  ["←  →", "replay: one frame back, forward"],
  ["y  n  u", "alert was right, was wrong, no label"],
  ["t", "dark, light"],
  ["?", "these keys"],
  ["Esc", "close"],
];

const el = (id) => document.getElementById(id);

class App {
  constructor() {
    this.link = new Link();
    this.pages = new Map();
    this.current = null;
    this.rates = [];
    this.tabs();
    this.vitals();
    this.help();
    this.listen();
  }

  // -- what pages may use -----------------------------------------------------------------------------------------------

  get meta() {
    return this.link.hello;
  }

  get owner() {
    return this.meta?.role === "owner";
  }

  go(page, id = "") {
    location.hash = id ? `#/${page}/${encodeURIComponent(id)}` : `#/${page}`;
  }

  say(words) {
    text(el("said"), words);
  }

  get = get;

  // -- shell ------------------------------------------------------------------------------------------------------------

  tabs() {
    for (const [i, [name, title]] of PAGES.entries()) {
      const tab = h("a", { href: `#/${name}`, "data-page": name }, h("kbd", { text: String(i + 1), "aria-hidden": "true" }), title);
      el("tabs").append(tab);
    }
  }

  vitals() {
    this.vital = { chip: stateChip(), feeds: h("span"), rate: h("b"), alerts: h("b"), time: h("b") };
    const v = this.vital;
    el("vitals").append(
      h("span", { class: "vital", title: "Feeds in sync" }, v.chip.el, v.feeds),
      h("span", { class: "vital wide-5", title: "Messages a second, all feeds" }, v.rate, " msg/s"),
      h("span", { class: "vital", title: "Alerts of this journal" }, v.alerts, " alerts"),
      h("span", { class: "vital wide-6", title: "Time of the monitor" }, v.time, " UTC"),
    );
  }

  status(s) {
    const total = Object.values(s.states).reduce((a, b) => a + b, 0);
    const live = s.states.live ?? 0;
    const worst = ["down", "suspect", "stale", "syncing", "ended", "live"].find((name) => s.states[name]);
    this.vital.chip.update(worst ?? "syncing");
    text(this.vital.feeds, `${live}/${total} live`);
    text(this.vital.rate, compact(Math.round(s.rate)));
    text(this.vital.alerts, count(s.alerts));
    text(this.vital.time, clock(s.ts_ns / 1e6));
    this.rates.push([s.ts_ns / 1e9, s.rate]);
    if (this.rates.length > 300) this.rates.shift();
    this.notices(s.notices);
    el("vitals").title = `up ${duration(s.uptime_s)}`;
  }

  notices(list) {
    show(el("notices"), list.length > 0);
    text(el("notices"), list.join("   ·   "));
  }

  listen() {
    const { link } = this;
    link.on("status", (s) => this.status(s));
    link.on("up", () => {
      show(el("lost"), false);
      document.body.classList.remove("offline");
      if (!this.current) this.route();
      if (this.finding) this.find();
      this.finding = false;
    });
    link.on("down", (d) => this.lost(d));
    link.on("signed-out", () => this.signedOut());
    link.on("error", (e) => this.say(e.text));
    window.addEventListener("hashchange", () => this.route());
    window.addEventListener("keydown", (e) => this.key(e));
    el("theme").addEventListener("click", () => this.theme());
    el("help-open").addEventListener("click", () => el("help").showModal());
  }

  lost({ wait, attempt, reason }) {
    document.body.classList.add("offline");
    const again = h("button", { type: "button", text: "Try now", on: { click: () => this.link.retry() } });
    const seconds = h("span", { class: "fixed" });
    const why = reason ? ` (${reason})` : "";
    el("lost").replaceChildren(`Connection lost${why}. What you see is old. Attempt ${attempt} in `, seconds, again);
    show(el("lost"), true);
    const due = performance.now() + wait;
    clearInterval(this.countdown);
    const tick = () => text(seconds, `${Math.max(0, Math.ceil((due - performance.now()) / 1000))} s `);
    tick();
    this.countdown = setInterval(tick, 250);
  }

  signedOut() {
    clearInterval(this.countdown);
    document.body.classList.add("offline");
    el("lost").replaceChildren("Not signed in any more: the monitor was restarted. Open the address that it printed.");
    show(el("lost"), true);
  }

  help() {
    const rows = KEYS.map(([key, what]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", { text: key })), h("td", { text: what })));
    const close = h("button", { type: "button", text: "Close", on: { click: () => el("help").close() } });
    el("help").append(
      h("h2", { id: "help-title", text: "Keys" }),
      h("table", {}, h("tbody", {}, ...rows)),
      h("p", { class: "muted", text: "Bids and buying are blue, asks and selling orange; bought trades are filled, sold ones are rings." }),
      close,
    );
  }

  theme() {
    this.say(`${window.microriskToggleTheme()} theme`);
  }

  // -- pages --------------------------------------------------------------------------------------------------------------

  route() {
    if (!this.meta) return;
    const [, name = "overview", id = ""] = location.hash.split("/");
    const found = PAGES.find((p) => p[0] === name) ?? PAGES[0];
    if (!this.pages.has(found[0])) {
      const page = new found[2](this);
      page.el.id = `page-${found[0]}`;
      page.el.hidden = true;
      el("main").append(page.el);
      this.pages.set(found[0], page);
    }
    this.turn(found[0], found[1], decodeURIComponent(id));
  }

  turn(name, title, id) {
    const page = this.pages.get(name);
    if (this.current !== page) {
      this.current?.hide?.();
      if (this.current) this.current.el.hidden = true;
      this.current = page;
      page.el.hidden = false;
      this.link.page(name);
      for (const tab of el("tabs").children) {
        if (tab.dataset.page === name) tab.setAttribute("aria-current", "page");
        else tab.removeAttribute("aria-current");
      }
    }
    document.title = `${id || title} · microrisk`;
    page.open(id);
  }

  // -- keys ---------------------------------------------------------------------------------------------------------------

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || el("help").open) return;
    const typing = e.target.matches("input, select, textarea");
    if (typing) return;
    const pressing = e.target.matches("button, a, summary") && (e.key === " " || e.key === "Enter");
    if (pressing) return;
    if (this.common(e.key) || this.current?.key?.(e)) e.preventDefault();
  }

  common(key) {
    const number = PAGES[Number(key) - 1];
    if (number) this.go(number[0]);
    else if (key === "t") this.theme();
    else if (key === "?") el("help").showModal();
    else if (key === "/") this.find();
    else return false;
    return true;
  }

  find() {
    if (!this.meta) {
      this.finding = true;
      return;
    }
    if (this.current !== this.pages.get("instrument")) {
      history.pushState(null, "", "#/instrument");
      this.route();
    }
    this.pages.get("instrument").search.focus();
  }
}

const app = new App();
app.link.open();
