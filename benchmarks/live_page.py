"""The measured section of docs/monitor.md, between its two marks, out of the records of benchmarks/recorded.

Written by `python -m benchmarks.page`. Nothing is measured here; a part is left out while its record is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDED, Record, flow, load, number, table

PAGE = Path(__file__).parents[1] / "docs" / "monitor.md"
BEGIN, END = "<!-- measured: written by python -m benchmarks.page -->", "<!-- end of measured -->"
TROUBLES = {
    "quiet": "nothing", "stopped": "8 readers stopped", "busy_disk": "disk busy", "abused": "page abused",
}  # fmt: skip
FAULTS = ("damaged", "dropped", "disconnected", "half open", "429", "slow REST", "late REST")


def _us(value: float | None) -> str:
    """Microseconds as people say them."""
    if value is None:
        return "-"
    return f"{number(value / 1000)} ms" if value >= 1000 else f"{number(value)} us"


def _ms(found: dict[str, float] | None, *names: str) -> str:
    return " / ".join(number(found[n]) for n in names) if found else "-"


def _taken(record: Record) -> str:
    m = record["machine"]
    return f"{m['date']}, commit {m['commit']}, {m['cores']} cores of {m.get('processor', 'an unknown processor')}"


def load_and_latency(record: Record) -> str:
    """Rate held, and latency by stage at shares of it."""
    words = flow(
        f"""`python -m benchmarks.bench_live` ({_taken(record)}): 46 MoldUDP64 feeds of 100 names each at some 37
        messages a packet, four scripted venues at 500 messages a second, 200 names scored, journal and
        checkpoints on, everything (sender and venues too) on the same two cores. Times are from the kernel's
        receive stamp; the sender keeps its schedule whatever the receiver does."""
    )
    parts = [words]
    if run := record.get("run"):
        s, share = run["stages"]["receive_scored"], run["sent"]["cpu_share"]
        parts.append(
            flow(
                f"""**{run["asked"]:,.0f} messages a second for {run["sent"]["seconds"]:,.0f} s**: {run["applied"]:,} of
        {run["sent"]["messages"]:,} applied, {run["kernel_drops"]} dropped, a checkpoint a minute (the tail); receive to
        scored p50 {_us(s["p50_us"])}, p99 {_us(s["p99_us"])}, p99.9 {_us(s["p999_us"])}; to the telling of
        {run["alerts"]:,} alerts p50 {_us(run["alert_us"]["p50"])}, p99.9 {_us(run["alert_us"]["p999"])}; memory
        {run["rss_mb"][-1]:,.0f} MB, slope {run["rss_slope_mb_10min"]} MB in 10 minutes; processor: monitor
        {run["cpu_share"]:.2f}, sender {share:.2f}, venues {run["beside_cpu_share"]:.2f} of a core."""
            )
        )
    rows = []
    for share, run in record.get("shares", {}).items():
        for name, s in run["stages"].items():
            if name != "missing_filled":
                first = f"{float(share):.0%}, {run['asked']:,.0f}/s" if name == "receive_taken" else ""
                rows.append([first, name.replace("_", " to "), *(_us(s[k]) for k in ("p50_us", "p99_us", "p999_us"))])
        told = run["alert_us"]
        rows.append(["", "receive to alert told", *(_us(told[k]) for k in ("p50", "p99", "p999"))])
    if rows:
        parts.append(table(["load", "stage", "p50", "p99", "p99.9"], rows))
    if options := record.get("options"):
        parts.append(_options(options))
    return "\n\n".join(parts)


def _options(options: dict[str, Any]) -> str:
    rows = []
    for share, found in options.items():
        for name, f in found.items():
            middle = {k: sorted(v)[len(v) // 2] for k, v in f.items()}
            rows.append(
                [
                    f"{float(share):.0%}",
                    name,
                    *(_us(middle[k]) for k in ("p50_us", "p99_us", "p999_us")),
                    f"{middle['cpu_share']:.2f}",
                ]
            )
    words = "What a core of its own (`latency.cpu`) and waiting without sleep (`latency.spin`) gain, medians:"
    return f"{words}\n\n{table(['load', 'option', 'p50', 'p99', 'p99.9', 'cores used'], rows)}"


def faults(record: Record) -> str:
    """MoldUDP64 under faults."""
    rows = []
    for r in record["rows"]:
        filled = r["filled_ms"] if r["pieces_filled"] else None
        rows.append(
            [
                r["row"],
                "equal" if r["hash_equal"] else "lost for good, marked",
                str(r["live_with_a_hole"]),
                _ms(r["shown_stale_ms"], "p50", "p99"),
                _ms(filled, "p50", "p99"),
                _ms(r["live_again_ms"], "p50", "p99"),
                str(r["images"]),
            ]
        )
    head = ["fault", "books", "turns shown live with a hole", "shown stale after, p50 / p99 ms", "piece filled after",
            "live again after", "images"]  # fmt: skip
    words = flow(
        f"""`python -m benchmarks.faults --messages 1000000` ({_taken(record)}): {record["messages"]:,} messages a
        row over real sockets, 60,000 a second; the hash of all books beside that of a loss-free replay. Times
        count from the receipt of the packet that reveals a hole. "Live again" spans chains of holes."""
    )
    return f"{words}\n\n{table(head, rows)}"


def kills(record: Record) -> str:
    """SIGKILL."""
    rows = [
        [
            name,
            str(r["kills"]),
            str(r["alerts"]),
            f"{r['lost']} / {r['doubled']} / {r['strange']}",
            "equal" if r["hash_equal"] else "NOT equal",
        ]
        for name in ("file", "moldudp64")
        if (r := record.get(name))
    ]
    words = (
        "`python -m benchmarks.kills --kills 200 --restarts`: a monitor killed at random points, the next one goes on."
    )
    if back := record.get("restarts"):
        words += " A journal of 10^6 messages is read back at " + ", ".join(
            f"{back[n]['messages_per_s'] / 1e6:.2f} M messages/s ({n})" for n in ("books", "scored") if n in back
        )
        words += "."
    return f"{words}\n\n{table(['transport', 'kills', 'alerts', 'lost / doubled / strange', 'books'], rows)}"


def venues(record: Record) -> str:
    """Websocket venues under faults."""
    rows = []
    for name, v in record["venues"].items():
        cells = [_ms(v["rows"].get(f, {}).get("live_again_ms"), "p50", "p95") for f in FAULTS]
        rows.append([name, *cells, f"{v['wrong_served_live']} of {v['compared_live']:,}", str(v["others_not_live"])])
    head = ["live again after, p50 / p95 ms", *FAULTS, "wrong books served", "others hurt"]
    words = flow(
        f"""`python -m benchmarks.venues` ({_taken(record)}): every venue at once in one monitor, each book that is
        served as live compared with the market's own. Half open holds 1 s of silence by configuration, 429 a
        Retry-After of 1 s, slow and late REST 0.3 s each way."""
    )
    return f"{words}\n\n{table(head, rows)}"


def slow_readers(record: Record) -> str:
    """Slow readers, busy disk, abuse."""
    rows = []
    for rate in record["rates"]:
        for name in (t for t in TROUBLES if t in rate):
            f = rate[name]
            middle = sorted(p["quiet"]["p99_us"] for p in f["pairs"])[len(f["pairs"]) // 2]
            rows.append(
                [
                    f"{rate['asked']:,.0f}/s, {rate['seconds']:.0f} s",
                    TROUBLES[name],
                    f"{f['p99_ratio']:.2f} [{f['range'][0]:.2f}-{f['range'][1]:.2f}], {len(f['pairs'])}",
                    _us(middle),
                    f"{rate['kernel_drops']}",
                    f"{rate['rss_growth_mb']:+.0f} MB",
                ]
            )  # fmt: skip
    head = ["rate", "trouble", "p99 beside its quiet neighbour's, pairs", "quiet p99", "drops", "memory over all"]
    words = flow(
        f"""`python -m benchmarks.slow_readers` ({_taken(record)}): quiet and troubled times in turns, median
        [range] of the pairs' ratios. "Nothing" is the machine's own change from one time to the next: a ratio
        inside its range says nothing."""
    )
    return f"{words}\n\n{table(head, rows)}"


def cryptofeed(record: Record) -> str:
    """Beside cryptofeed."""
    lost, fast = [], []
    for venue, clients in record["faults"].items():
        if isinstance(clients, dict) and "monitor" in clients:
            for client, f in clients.items():
                lost.append(
                    [
                        venue,
                        client,
                        f"{f['wrong']:,} of {f['handed_out']:,}",
                        number(f["wrong_book_seconds"]),
                        number(f["old_book_seconds"]),
                        _ms(f["recovered_ms"], "p50", "p95"),
                        str(f["not_recovered"]),
                    ]
                )
    for venue, clients in record["speed"].items():
        if isinstance(clients, dict) and "monitor" in clients:
            for client, f in clients.items():
                p = f["latency_us"]
                fast.append(
                    [
                        venue,
                        client,
                        number(f["messages_per_s"]["median"]),
                        number(f["cpu_us_per_message"]["median"]),
                        " / ".join(number(p[q]["median"]) for q in ("p50", "p99", "p999")),
                    ]
                )
    blind = ", ".join(record["blind"])
    words = flow(
        f"""`nox -s rivals_live` ({_taken(record["faults"])}), cryptofeed {record["cryptofeed"]} on the same
        scripted venues, {record["faults"]["drops"]} updates lost. Wrong: a book handed out as valid that is not
        the market's. Old: the market has gone on and the book does not say that it has not. {blind} numbers
        nothing, so that no reader can see a loss; the monitor compares with an image once a minute."""
    )
    slower = flow(
        """Speed on the same frames, as fast as the client takes them, and latency at 2,000 messages a second, us.
        The monitor is slower: it writes every message to its journal before it applies it, hands it from one
        thread to another, and verifies Kraken's checksums, which cryptofeed does only when asked."""
    )
    first = table(
        ["venue", "client", "wrong books", "wrong, book-s", "old, book-s", "right again p50 / p95 ms", "never"], lost
    )
    second = table(["venue", "client", "messages/s", "CPU us a message", "p50 / p99 / p99.9 us"], fast)
    return f"{words}\n\n{first}\n\n{slower}\n\n{second}"


SECTIONS: dict[str, tuple[str, Callable[[Record], str]]] = {
    "live": ("Load and latency", load_and_latency),
    "faults": ("MoldUDP64 under faults", faults),
    "venues": ("Venues under faults", venues),
    "kills": ("Killed and gone on", kills),
    "slow_readers": ("Slow readers, a busy disk, abuse", slow_readers),
    "cryptofeed": ("Beside cryptofeed", cryptofeed),
}


def measured(folder: Path = RECORDED) -> str:
    """The section."""
    parts = []
    for name, (title, write) in SECTIONS.items():
        if record := load(name, folder):
            parts.append(f"### {title}\n\n{write(record)}")
    return "\n\n".join(parts)


def filled(text: str, folder: Path = RECORDED) -> str:
    """docs/monitor.md with the section between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{measured(folder)}\n{END}{after}"
