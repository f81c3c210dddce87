// A row chosen by keyboard or pointer in a table whose rows come and go.

export class Choice {
  /** `rows`: dom.Rows; `open` is called with the key of the row that is opened, `chosen` with each new choice. */
  constructor(rows, { open = () => {}, chosen = () => {} }) {
    this.rows = rows;
    this.open = open;
    this.chosen = chosen;
    this.key = null;
    rows.body.addEventListener("click", (e) => {
      const row = e.target.closest("tr");
      if (!row?.dataset.key) return;
      this.set(row.dataset.key);
      this.open(this.key);
    });
  }

  set(key) {
    this.key = key;
    this.mark();
    this.chosen(key);
  }

  /** After rows changed: the mark stays on its row. */
  mark() {
    for (const row of this.rows.body.children) {
      const mine = row.dataset.key === this.key;
      if (mine) row.setAttribute("aria-selected", "true");
      else row.removeAttribute("aria-selected");
    }
  }

  /** j, k and Enter. */
  press(key) {
    if (key === "Enter") {
      if (this.key === null) return false;
      this.open(this.key);
      return true;
    }
    if (key !== "j" && key !== "k") return false;
    const all = [...this.rows.body.children].filter((r) => r.dataset.key);
    if (all.length === 0) return true;
    const at = all.findIndex((r) => r.dataset.key === this.key);
    const next = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + (key === "j" ? 1 : -1)));
    this.set(all[next].dataset.key);
    all[next].scrollIntoView({ block: "nearest" });
    return true;
  }
}
