"""SIGKILL at random points: books and alerts of a monitor killed again and again, beside one that was not.

    python -m benchmarks.kills --kills 200

A recorded market with planted trouble is played; each child is killed after a seeded random time (checkpoints every few
tenths of a second, so kills fall into them too) and the next one goes on in the same folder, until the recording has
ended. Then the hash of all books and the alert ids must be those of the run that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from microrisk.evaluate.demo import planted
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.desk import Desk
from microrisk.monitor.restart import restart
from microrisk.pipeline.watch import named

RECORDED = Path(__file__).parent / "recorded" / "kills.json"


def child(source: str, folder: Path, checkpoint_s: float) -> subprocess.Popen[bytes]:
    """A monitor that ends by itself when the recording has ended."""
    command = [sys.executable, "-m", "benchmarks.kills", "--child", source, str(folder), str(checkpoint_s)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def play(source: str, folder: Path, checkpoint_s: float) -> None:
    """The child's work."""
    from microrisk.monitor.address import parse
    from microrisk.monitor.service import Service, Settings

    service = Service([parse(source)], Settings(folder=folder, checkpoint_s=checkpoint_s))
    service.start()
    while any(f.state != "ended" for f in service.hub.overview()["feeds"]):
        time.sleep(0.02)
    service.stop(clean=False)


def result(folder: Path) -> dict[str, Any]:
    """Books from the journal, ids from the log, and how fast the journal was read."""
    desk = Desk(named(None)[0])
    found, writer = restart(folder, desk, lambda books, rows: None)
    writer.close()
    log = AlertLog(folder / "alerts.jsonl")
    ids = [a.id for a in log.last(1_000_000)]
    log.close()
    return {"hash": desk.state_hash(), "ids": ids, "messages": found.messages, "seconds": found.seconds}


def killed(source: str, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Play with kills until the recording has ended, or the kills are used up and it ends by itself."""
    rng = random.Random(seed)
    done = ended = 0
    while True:
        process = child(source, folder, 0.3)
        if done < kills:
            try:
                process.wait(timeout=rng.uniform(0.6, 1.9))
                ended += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                continue
        elif process.wait() != 0:
            raise RuntimeError("the last child failed")
        return {"kills": done}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        play(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description="SIGKILL at random points.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as top:
        session = planted(2, 700.0)
        path = write_itch(session, Path(top) / "market.itch")
        # slow enough that every kill finds it running
        speed = 700.0 / (args.kills * 0.6 + 1)
        source = f"file:{path}?date={session_date(session)}&venue=SIMX&name=m&speed="
        play(source + "0", Path(top) / "whole", 1e6)
        whole = result(Path(top) / "whole")
        made = killed(f"{source}{speed:.3f}", Path(top) / "killed", args.kills, args.seed)
        got = result(Path(top) / "killed")
    lost, doubled = set(whole["ids"]) - set(got["ids"]), [i for i, n in Counter(got["ids"]).items() if n > 1]
    out = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "seed": args.seed,
        **made,
        "alerts": len(whole["ids"]),
        "lost": len(lost),
        "doubled": len(doubled),
        "strange": len(set(got["ids"]) - set(whole["ids"])),
        "hash_equal": whole["hash"] == got["hash"],
        "replayed_messages_per_s": round(whole["messages"] / whole["seconds"]),
    }
    print(json.dumps(out, indent=1))
    if args.save:
        RECORDED.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
