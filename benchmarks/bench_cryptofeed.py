"""This project's monitor and `cryptofeed` on the same scripted venues: messages a second, latency, wrong books.

    nox -s rivals_live                                   makes cryptofeed's environment, records everything
    python -m benchmarks.bench_cryptofeed --save
    python -m benchmarks.bench_cryptofeed --rounds 1 --messages 20000 --seconds 3 --drops 10     a quick look

Speed: one venue, four books, every message ready before it is sent (`venue_tape`), the client alone in its process. The
unpaced run gives messages a second (from the first byte sent to the last book changed) and processor time a message;
the paced one the time from the write of a message to the book's callback. Rounds alternate their order. Each run ends
with the books compared with the market's own. The monitor writes its journal in the same run; `scored` adds codes,
network and alerts of every book, which the rival has nothing beside.

Faults: `served.py`. Kraken's rival reads the v1 of the same market, the monitor v2; Coinbase is left out, because
cryptofeed 2.4.1 speaks an interface of it that the scripted venue does not have and that needs keys.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RECORDED, machine, save, say, spread
from benchmarks.served import BLIND, faults
from benchmarks.venue_tape import TAPED

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / "build" / "rivals" / "bin" / "python"
VENUES = ("Binance spot", "Binance futures", "Kraken", "Bitstamp")
VERSION = {"Kraken": {"cryptofeed": "Kraken v1", "ours": "Kraken v2"}}
"""The same market in two versions of its venue's protocol."""
QUERY = {"Binance spot": "market=spot", "Binance futures": "market=usdm", "Bitstamp": "channel=diff_order_book"}
SIDES = ("monitor", "monitor, scored", "cryptofeed")
QUOTE = {"Binance spot": "-USDT", "Binance futures": "-USDT-PERP"}
PATIENCE_S = 900.0
RECORD = RECORDED / "cryptofeed.json"
"""Speed and faults, each of its own run where they were not taken together."""


class Talk:
    """A child process that answers lines with JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    def read(self) -> Any:
        """The next answer; RuntimeError with its last words when it has ended."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended: {self.process.stderr.read()[-2000:]}")
        return json.loads(line)

    def ask(self, word: str) -> Any:
        """Say a word, get its answer."""
        self.tell(word)
        return self.read()

    def tell(self, word: str) -> None:
        """Say a word."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """Its stdin ends, and it with that."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def talk(command: Sequence[str]) -> Iterator[Talk]:
    """A child until the end of the block."""
    child = Talk(command)
    try:
        yield child
    finally:
        child.close()


def installed() -> str:
    """Version of cryptofeed in its environment, "" when there is none."""
    if not PYTHON.exists():
        return ""
    asked = "import importlib.metadata as m; print(m.version('cryptofeed'))"
    done = subprocess.run([str(PYTHON), "-c", asked], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def rival(venue: str, ws: str, rest: str, products: Sequence[str], **more: Any) -> list[str]:
    """Command of the rival's worker."""
    names = {_std(venue, p): p for p in products}
    task = {"venue": venue, "ws": ws, "rest": rest, "names": names, "depth": TAPED[venue].depth, **more}
    return [str(PYTHON), str(ROOT / "benchmarks" / "cryptofeed_worker.py"), json.dumps(task)]


def _std(venue: str, product: str) -> str:
    """A product as cryptofeed calls it."""
    return product[:3].upper() + QUOTE.get(venue, "-USD")


def source(venue: str, ws: str, rest: str, products: Sequence[str]) -> str:
    """The venue as an address of the monitor."""
    at = TAPED[venue]
    query = QUERY.get(venue, "depth=10") + (f"&rest={rest}" if at.rest else "")
    return f"{at.scheme}:{','.join(products)}?url={ws}&{query}&silent_ms=60000&name=venue"


def _command(side: str, venue: str, at: dict[str, Any]) -> list[str]:
    args = venue, at["ws"], at["rest"], at["products"]
    if side == "cryptofeed":
        return rival(*args)
    scored = len(at["products"]) if side == "monitor, scored" else 0
    return [sys.executable, "-m", "benchmarks.live_worker", source(*args), str(scored)]


def run(side: str, name: str, n: int, messages: int, rate: float, seed: int) -> dict[str, Any]:
    """One client through one tape; AssertionError unless every book is the market's own at the end."""
    venue = VERSION.get(name, {}).get("cryptofeed" if side == "cryptofeed" else "ours", name)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stamps = Path(folder) / "stamps.npy"
        words = {"venue": venue, "products": n, "messages": messages, "rate": rate, "seed": seed, "stamps": stamps}
        told = [w for key, value in words.items() for w in (f"--{key}", str(value))]
        tape = stack.enter_context(talk([sys.executable, "-m", "benchmarks.venue_tape", *told]))
        client = stack.enter_context(talk(_command(side, venue, tape.read())))
        tape.ask("prime")
        before = client.ask("count")
        sent = tape.ask("go")
        after = _all(client, before["n"] + sent["n"])
        end, want, begun = client.ask("end"), tape.ask("end"), np.load(stamps)
    _equal(end, want, f"{side} at {venue}")
    handled = np.array(end["stamps"][-sent["n"] :], np.int64)
    took = handled - begun
    assert (took > 0).all(), "a message was handled before it was sent"
    return {
        "per_s": sent["n"] / ((handled[-1] - begun[0]) / 1e9),
        "cpu_us": (after["cpu_ns"] - before["cpu_ns"]) / sent["n"] / 1e3,
        "us": {k: float(np.quantile(took, q)) / 1e3 for k, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))},
    }


def _all(client: Talk, n: int) -> dict[str, Any]:
    """Until the client has handled so many messages."""
    end = time.monotonic() + PATIENCE_S
    while (got := client.ask("count"))["n"] < n:
        assert time.monotonic() < end, f"{got['n']} of {n} messages after {PATIENCE_S} s"
        time.sleep(0.05)
    assert got["n"] == n, f"{got['n']} messages of {n}"
    return got


def _equal(end: dict[str, Any], want: dict[str, Any], who: str) -> None:
    """The client's books and the market's."""
    have = {_letters(name): sides for name, sides in end["books"].items()}
    assert set(have) == {_letters(p) for p in want}, f"{who}: {sorted(have)}"
    for product, sides in want.items():
        got = [[tuple(row) for row in side] for side in have[_letters(product)]]
        assert got == [[tuple(row) for row in side] for side in sides], f"{who}: another book of {product}"
    assert set(end.get("states", {}).values()) <= {"live"}, f"{who}: {end['states']}"


def _letters(name: str) -> str:
    return "".join(c for c in name.upper().removesuffix("-PERP") if c.isalpha())


def speed(names: Sequence[str], rounds: int, n: int, messages: int, rate: float, seconds: float) -> dict[str, Any]:
    """Rounds of every side at every venue, unpaced and at `rate`."""
    out: dict[str, Any] = {}
    for name in names:
        fast: dict[str, list[Any]] = {side: [] for side in SIDES}
        paced: dict[str, list[Any]] = {side: [] for side in SIDES}
        for k in range(rounds):
            for side in SIDES[:: 1 if k % 2 == 0 else -1]:
                fast[side].append(run(side, name, n, messages, 0.0, seed=k + 1))
                paced[side].append(run(side, name, n, int(rate * seconds), rate, seed=k + 1))
                say(f"{name}, round {k + 1}, {side}: {fast[side][-1]['per_s']:,.0f}/s, {paced[side][-1]['us']}")
        out[name] = {side: _told(fast[side], paced[side]) for side in SIDES}
        theirs = fast["cryptofeed"]
        for side in SIDES[:2]:
            rows = list(zip(fast[side], theirs, strict=True))
            out[name][side]["times_the_rival"] = spread([a["per_s"] / b["per_s"] for a, b in rows])
    return out


def _told(fast: list[Any], paced: list[Any]) -> dict[str, Any]:
    return {
        "messages_per_s": spread([r["per_s"] for r in fast]),
        "cpu_us_per_message": spread([r["cpu_us"] for r in fast]),
        "paced_cpu_us_per_message": spread([r["cpu_us"] for r in paced]),
        "latency_us": {q: spread([r["us"][q] for r in paced]) for q in ("p50", "p99", "p999")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Against cryptofeed on the same scripted venues.")
    parser.add_argument("--venues", default="", help="only venues whose name has one of these, a,b,..., in it")
    parser.add_argument("--rounds", type=int, default=5, help="of speed; 0 = none")
    parser.add_argument("--products", type=int, default=4)
    parser.add_argument("--messages", type=int, default=100_000, help="of an unpaced run")
    parser.add_argument("--rate", type=float, default=2000.0, help="messages a second of a paced run")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a paced run")
    parser.add_argument("--drops", type=int, default=100, help="updates lost at each venue; 0 = none")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    version = installed()
    assert version, f"cryptofeed is not installed in {PYTHON.parent.parent}: nox -s rivals_live does it"
    names = [v for v in VENUES if any(word in v for word in args.venues.split(","))]
    begun = time.monotonic()
    out: dict[str, Any] = {"cryptofeed": version, "blind": sorted(BLIND)}
    if args.rounds:
        words = {k: getattr(args, k) for k in ("rounds", "products", "messages", "rate", "seconds")}
        out["speed"] = {"machine": machine(), **words}
        out["speed"] |= speed(names, args.rounds, args.products, args.messages, args.rate, args.seconds)
        out["speed"]["took_s"] = round(time.monotonic() - begun)
    if args.drops:
        out["faults"] = {"machine": machine(), "drops": args.drops, **faults(names, args.drops)}
    if args.save:
        known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        save("cryptofeed", "nox -s rivals_live", known | out)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
