"""This project's monitor as the client of one scripted venue, in a process of its own.

The first argument is the source, the second how many instruments are scored. Commands come as lines on stdin, each is
answered by a line of JSON: `count` (venue's messages applied), `end` (the books, and when each message was applied).
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from array import array
from pathlib import Path
from typing import Any

from microrisk.monitor.address import parse
from microrisk.monitor.journal import Record
from microrisk.monitor.service import Service, Settings
from microrisk.spec.journal import Kind, Text


class Client:
    """The monitor, and the moment behind each message of the venue that its books have taken."""

    def __init__(self, source: str, scored: int, folder: Path) -> None:
        self.service = Service([parse(source)], Settings(folder=folder, checkpoint_s=1e6, scored=scored))
        self.stamps = array("q")
        self._apply = self.service.desk.apply
        self.service.desk.apply = self._applied  # type: ignore[method-assign]
        self.service.start()

    def _applied(self, record: Record) -> None:
        self._apply(record)
        if record.kind == Kind.TEXT and record.flags == Text.RECEIVED:
            self.stamps.append(time.monotonic_ns())

    def end(self) -> dict[str, Any]:
        """Read in the ingest thread."""
        ingest = self.service.ingest
        (books,) = self.service.desk.books.values()
        state = ingest.feed_state(books, 0)
        live = {e.symbol: ingest.instrument_state(books, i, state)[0] for i, e in books.names.items()}
        sides = {e.symbol: [s.tolist() for s in books.engine.levels(i, 0)] for i, e in books.names.items()}
        scored = len(books.stage.chosen)
        return {"books": sides, "states": live, "stamps": self.stamps.tolist(), "scored": scored}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="live-worker-") as folder:
        client = Client(sys.argv[1], int(sys.argv[2]), Path(folder))
        for line in sys.stdin:
            if line.strip() == "count":
                _say({"n": len(client.stamps), "cpu_ns": time.process_time_ns()})
            elif line.strip() == "end":
                ended = threading.Event()
                client.service.ingest.later(lambda e=ended: (_say(client.end()), e.set()))  # type: ignore[misc]
                ended.wait()
        client.service.stop(clean=False)


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
