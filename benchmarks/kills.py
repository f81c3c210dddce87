"""SIGKILL at random points: books and alerts of a monitor killed again and again, beside one that was not.

    python -m benchmarks.kills --kills 200 --restarts --save

A market with planted trouble is played, from a recording or over MoldUDP64 (lines A and B with a re-request server, all
in this process, which lives on); each child is killed after a seeded random time (checkpoints every few tenths of a
second, so kills fall into them too, and into restarts) and the next one goes on in the same folder, until the market
has ended. Then:

- recording: the hash of all books and the alert ids must be those of the run that nobody killed;
- MoldUDP64: the books must be those of the loss-free replay, and the alert ids those that the whole journal gives when
  it is read from its beginning (another run would not give them: live features go by the time of receipt).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.daystream import cached_day
from benchmarks.measure import machine
from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.alerts import Alerts, origin_of
from microrisk.monitor.desk import Desk
from microrisk.monitor.journal import Writer
from microrisk.monitor.publish import MoldUdpPublisher, Pace, RerequestServer, Tape
from microrisk.monitor.publish.messages import timed
from microrisk.monitor.rated import free_ports
from microrisk.monitor.restart import restart
from microrisk.monitor.service import Service, Settings
from microrisk.pipeline import replay
from microrisk.pipeline.watch import named
from microrisk.spec.journal import NO_FEED, Kind

RECORDED = Path(__file__).parent / "recorded" / "kills.json"
SECONDS = 700.0
"""Of the planted market."""
LIFE_S = (0.6, 1.9)
CHECKPOINT_S = 0.3
TAIL_S = 3.0
PER_PACKET = 30


def child(source: str, folder: Path, *, whole_journal: bool) -> subprocess.Popen[bytes]:
    """A monitor that ends by itself when its feed has ended."""
    command = [sys.executable, "-m", "benchmarks.kills", "--child", source, str(folder), str(int(whole_journal))]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def play(source: str, folder: Path, checkpoint_s: float = CHECKPOINT_S, *, whole_journal: bool = False) -> None:
    """The child's work; `whole_journal`: segments in front of a checkpoint stay, for the comparison."""
    if whole_journal:
        Writer.drop_before = lambda self, number: 0  # type: ignore[method-assign]
    service = Service([parse(source)], Settings(folder=folder, checkpoint_s=checkpoint_s))
    service.start()
    while any(f.state != "ended" for f in service.hub.overview()["feeds"]):
        time.sleep(0.02)
    service.stop(clean=False)


def told(folder: Path) -> list[str]:
    """Ids in the log, in order."""
    log = AlertLog(folder / "alerts.jsonl")
    ids = [a.id for a in log.last(1_000_000)]
    log.close()
    return ids


def read_back(folder: Path, **desk: Any) -> dict[str, Any]:
    """Books and alert ids of a journal, and how fast it was read."""
    weights, facts = named(None)
    made, ids = Desk(weights, **desk), []
    alerts = Alerts(weights, facts["name"])
    found, writer = restart(
        folder,
        made,
        lambda b, rows, crossings: ids.extend(
            a.id for a in chain(alerts.of(rows, origin_of(b)), alerts.crossed(crossings, origin_of(b)))
        ),
    )
    writer.close()
    return {"hash": made.hashes(), "ids": ids, "messages": found.messages, "seconds": found.seconds}


def killed(
    source: str, folder: Path, kills: int, seed: int, *, whole_journal: bool, let_end: Callable[[], None]
) -> dict[str, Any]:
    """Play with kills until the market has ended, or the kills are used up and it ends by itself.

    let_end : called behind the last kill
    """
    rng = random.Random(seed)
    done = 0
    while True:
        if done == kills:
            let_end()
        process = child(source, folder, whole_journal=whole_journal)
        try:
            if process.wait(timeout=rng.uniform(*LIFE_S) if done < kills else None) != 0:
                raise RuntimeError("a child failed")
            return {"kills": done}
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1


def verdict(made: dict[str, Any], expected: list[str], got: list[str], hash_equal: bool) -> dict[str, Any]:
    """The row of a record."""
    return made | {
        "alerts": len(set(expected)),
        "lost": len(set(expected) - set(got)),
        "doubled": sum(n > 1 for n in Counter(got).values()),
        "strange": len(set(got) - set(expected)),
        "hash_equal": hash_equal,
    }


def recording(path: Path, day: str, top: Path, kills: int, seed: int) -> dict[str, Any]:
    """A file, slow enough that every kill finds it running."""
    source = f"file:{path}?date={day}&venue=SIMX&name=m&speed="
    play(source + "0", top / "whole", 1e6)
    speed = SECONDS / (kills * LIFE_S[0] + 1)
    made = killed(f"{source}{speed:.3f}", top / "killed", kills, seed, whole_journal=False, let_end=lambda: None)
    whole, got = read_back(top / "whole"), read_back(top / "killed")
    return verdict(made, told(top / "whole"), told(top / "killed"), whole["hash"] == got["hash"])


def written(folder: Path) -> int:
    """Bytes of the journal; it grows four times a second while a monitor runs."""
    return sum(path.stat().st_size for path in folder.glob("*.journal"))


@contextmanager
def on_the_air(
    messages: list[bytes], day: str, folder: Path, seconds: float
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The market over MoldUDP64: the source's address, and what lets its session end when all is sent.

    Two thirds are sent in `seconds`, while children come and go; the rest in TAIL_S when the last one runs: however
    slow the machine, some of it is heard as it is sent.
    """
    tape = Tape("KILLS")
    stop, may_end = threading.Event(), threading.Event()
    cut = 2 * len(messages) // 3
    with (
        MoldUdpPublisher(tape, ("127.0.0.1", 0), ("127.0.0.1", 0), heartbeat_s=0.1) as publisher,
        RerequestServer(tape, ("127.0.0.1", 0)) as server,
    ):
        a, b, asked = publisher.addresses["A"], publisher.addresses["B"], server.address

        def beat_until(true: Callable[[], bool]) -> None:
            while not true() and not stop.wait(0.1):
                publisher.heartbeat()

        def work() -> None:
            publisher.run(timed(messages[:cut]), Pace(rate=cut / seconds))
            beat_until(may_end.is_set)
            before = written(folder)
            beat_until(lambda: written(folder) > before)
            if not stop.is_set():
                publisher.run(timed(messages[cut:]), Pace(rate=(len(messages) - cut) / TAIL_S))
            while not stop.wait(0.1):
                publisher.end(repeats=1)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        where = f"{a[0]}:{a[1]}?b={b[0]}:{b[1]}&request={asked[0]}:{asked[1]}&recover_ms=20000"
        try:
            yield f"moldudp64://{where}&date={day}&venue=SIMX&name=m", may_end.set
        finally:
            stop.set()
            thread.join(timeout=60)


def moldudp64(path: Path, day: str, top: Path, kills: int, seed: int) -> dict[str, Any]:
    """Datagrams: what is sent while no child lives is asked again."""
    messages = unframe(path.read_bytes())
    with on_the_air(messages, day, top / "mold", kills * sum(LIFE_S) / 2 + 1) as (source, let_end):
        made = killed(source, top / "mold", kills, seed, whole_journal=True, let_end=let_end)
    (top / "again").mkdir()
    for segment in (top / "mold").glob("*.journal"):
        shutil.copy(segment, top / "again")
    books, whole = read_back(top / "mold"), read_back(top / "again")
    expected = replay(str(path), date=day, venue="SIMX").state_hash
    return verdict(made, whole["ids"], told(top / "mold"), {books["hash"]["m"], whole["hash"]["m"]} == {expected})


TRANSPORTS = {"file": recording, "moldudp64": moldudp64}
PARTS = (*TRANSPORTS, "restarts")


def write_journal(day: Path, folder: Path, scored: int) -> None:
    """The journal of a day as packets of PER_PACKET messages, with a CLOCK every 300 packets."""
    (port,) = free_ports(1)
    service = Service([parse(f"moldudp64://127.0.0.1:{port}?name=m")], Settings(folder=folder, scored=scored))
    service.desk.writing = True
    service._open_feeds()  # without its threads: this one hands in
    ingest, live = service.ingest, service.desk.books[0].live
    messages = unframe(day.read_bytes())
    for n, at in enumerate(range(0, len(messages), PER_PACKET)):
        group = messages[at : at + PER_PACKET]
        body = b"".join(struct.pack(">H", len(m)) + m for m in group)
        head = struct.pack(">10sQH", b"RESTARTS  ", at + 1, len(group))
        live.take(0, head + body, ingest.poller.now_ns(), ingest.writer.core)
        ingest.commit()
        if n % 300 == 0:
            ingest.put(NO_FEED, Kind.CLOCK, ingest.poller.now_ns())
            ingest.commit_records()
    service.stop(clean=False)


def restarts(top: Path, messages: int) -> dict[str, Any]:
    """How fast a journal of a day is read back: books alone, and with all of its 100 names scored; three times each."""
    day, _ = cached_day(messages=messages, symbols=100, live_orders=20_000, seed=1)
    out: dict[str, Any] = {}
    for name, scored in (("books", 0), ("scored", 200)):
        write_journal(day, top / name, scored)
        found = [read_back(top / name, scored=scored) for _ in range(3)]
        seconds = sorted(f["seconds"] for f in found)
        out[name] = {
            "messages": found[0]["messages"],
            "seconds": [round(s, 3) for s in seconds],
            "messages_per_s": round(found[0]["messages"] / seconds[1]),
        }
    return out


def merged(path: Path, made: dict[str, Any]) -> dict[str, Any]:
    """What was recorded, with the parts that were made anew in the place of theirs; each says when and where."""
    before = json.loads(path.read_text()) if path.exists() else {}
    about = {key: made[key] for key in ("date", "machine", "seed")}
    fresh = {part: about | made[part] for part in PARTS if part in made}
    return {part: fresh.get(part) or before[part] for part in PARTS if part in fresh or part in before}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        play(sys.argv[2], Path(sys.argv[3]), whole_journal=sys.argv[4] == "1")
        return
    parser = argparse.ArgumentParser(description="SIGKILL at random points.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transport", choices=[*TRANSPORTS, "all"], default="all")
    parser.add_argument("--restarts", action="store_true", help="also how fast a journal of 10^6 messages is read back")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    out: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "seed": args.seed}
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        top = Path(name)
        session = planted(2, SECONDS)
        path = write_itch(session, top / "market.itch")
        for transport in TRANSPORTS if args.transport == "all" else [args.transport]:
            (top / transport).mkdir()
            out[transport] = TRANSPORTS[transport](path, session_date(session), top / transport, args.kills, args.seed)
            print(json.dumps({transport: out[transport]}), flush=True)
        if args.restarts:
            out["restarts"] = restarts(top, 1_000_000)
    print(json.dumps(out, indent=1))
    if args.save:
        RECORDED.write_text(json.dumps(merged(RECORDED, out), indent=1) + "\n")


if __name__ == "__main__":
    main()
