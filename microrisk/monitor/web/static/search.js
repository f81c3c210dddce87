// The field that finds an instrument: type, arrows, Enter.

import { h, text, show, stateChip } from "./dom.js";
import { get } from "./net.js";
import { odds } from "./fmt.js";

const SHOWN = 40;

/** Venues write one pair in many ways: BTC/USD, BTC-USD, btcusd. */
const plain = (name) => name.toUpperCase().replace(/[^A-Z0-9]/g, "");

export class Search {
  constructor(pick) {
    this.pick = pick;
    this.all = [];
    this.at = 0;
    this.input = h("input", {
      type: "search", placeholder: "Find an instrument  ( / )", role: "combobox", "aria-expanded": "false",
      "aria-controls": "found", "aria-autocomplete": "list", "aria-label": "Find an instrument", autocomplete: "off", spellcheck: "false",
    });
    this.list = h("ul", { id: "found", role: "listbox", "aria-label": "Instruments", hidden: true });
    this.el = h("div", { class: "search" }, this.input, this.list);
    this.input.addEventListener("focus", () => this.load());
    this.input.addEventListener("input", () => this.draw(0));
    this.input.addEventListener("keydown", (e) => this.key(e));
    this.input.addEventListener("blur", () => this.close());
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  async load() {
    this.all = await get("/api/instruments").catch(() => this.all);
    if (document.activeElement === this.input) this.draw(0);
  }

  matches() {
    const wanted = plain(this.input.value);
    return this.all.filter((i) => plain(i.id).includes(wanted)).slice(0, SHOWN);
  }

  draw(at) {
    const found = this.matches();
    this.at = Math.max(0, Math.min(found.length - 1, at));
    this.list.replaceChildren(...found.map((row, i) => this.option(row, i)));
    if (found.length === 0) this.list.append(h("li", { class: "muted", text: this.all.length ? "no instrument of that name" : "no instrument has a book yet" }));
    show(this.list, true);
    this.input.setAttribute("aria-expanded", "true");
    this.input.setAttribute("aria-activedescendant", found.length ? `found-${this.at}` : "");
    this.list.children[this.at]?.scrollIntoView({ block: "nearest" });
  }

  option(row, i) {
    const chip = stateChip();
    chip.update(row.state);
    const prices = h("span", { class: "n", text: `${row.bid || "–"} / ${row.ask || "–"}` });
    const level = h("span", { class: "n muted", text: row.scored ? odds(row.level) : "not scored" });
    const option = h("li", { id: `found-${i}`, role: "option", "aria-selected": String(i === this.at) }, h("span", { class: "name", text: row.id }), prices, level, chip.el);
    option.addEventListener("pointerdown", (e) => {
      e.preventDefault();
      this.take(row.id);
    });
    return option;
  }

  key(e) {
    if (e.key === "ArrowDown") this.draw(this.at + 1);
    else if (e.key === "ArrowUp") this.draw(this.at - 1);
    else if (e.key === "Enter" && this.matches()[this.at]) this.take(this.matches()[this.at].id);
    else if (e.key === "Escape") this.input.blur();
    else return;
    e.preventDefault();
  }

  take(id) {
    this.input.value = "";
    this.input.blur();
    this.pick(id);
  }

  close() {
    show(this.list, false);
    this.input.setAttribute("aria-expanded", "false");
  }

  name(id) {
    text(this.input, "");
    this.input.placeholder = id ? `${id}  ( / )` : "Find an instrument  ( / )";
  }
}
