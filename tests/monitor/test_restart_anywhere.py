"""Whatever happens in whatever order, a restart at any place has what the process had."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from microrisk.errors import OutputError
from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor import service as services
from microrisk.monitor.books import ItchBooks
from microrisk.monitor.desk import SELECT_CLOCKS
from microrisk.monitor.journal import Writer
from microrisk.monitor.service import Service
from microrisk.pipeline.watch import named
from microrisk.weights import Weights
from tests.monitor.test_sessions import clock, hand_in, opened, told

Market = tuple[list[bytes], str]
STEPS = 40
SYMBOLS = 3
REFERENCES = {b"A": (11,), b"F": (11,), b"E": (11,), b"C": (11,), b"X": (11,), b"D": (11,), b"U": (11, 19), b"P": (11,)}
"""Where messages name orders."""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    session = planted(2, 700.0)
    path = write_itch(session, tmp_path_factory.mktemp("market") / "market.itch")
    return unframe(path.read_bytes()), session_date(session)


def of_number(message: bytes, locate: int, symbol: bytes) -> bytes:
    """The message as another instrument's: its number, its name, orders of its own."""
    data = bytearray(message.replace(b"SIM1    ", symbol.ljust(8)))
    if data[1:3] != b"\0\0":
        data[1:3] = locate.to_bytes(2, "big")
    for at in REFERENCES.get(message[:1], ()):
        data[at : at + 2] = locate.to_bytes(2, "big")
    return bytes(data)


def with_an_own_table(model: str | None) -> tuple[Weights, dict[str, Any]]:
    """The default model, in which one of the names has a table of its own."""
    weights, facts = named(model)
    generic = weights.table_for(None)
    own = SimpleNamespace(breaks=generic.breaks, value=generic.value, slope=generic.slope)
    return weights.with_table("SIM2.SIMX", own, tick=100, lot=100), facts


class Run:
    """A service without its threads, and what is done to it at random: three instruments, of which one is scored."""

    def __init__(self, folder: Path, market: Market, rng: random.Random) -> None:
        self.folder, self.rng, (self.messages, self.day) = folder, rng, market
        self.service, self.books = opened(folder, self.day, scored=1)
        self.session, self.at, self.read = 0, 0, [0] * SYMBOLS
        self.full = False
        self.refuse()

    @property
    def name(self) -> bytes:
        return f"S{self.session}".encode().ljust(10)

    def refuse(self) -> None:
        """Whether the disk takes alerts is up to `full`; the journal's part is in test_full_disk."""
        log, append = self.service.log, self.service.log.append

        def write(alert: Any) -> None:
            if self.full:
                raise OutputError(f"errno {errno.ENOSPC}")
            append(alert)

        log.append = write  # type: ignore[method-assign]

    def packets(self) -> None:
        """Of one instrument; what a number is called goes round with the sessions."""
        k, n = self.rng.randrange(SYMBOLS), self.rng.randrange(1, 1500)
        symbol = f"SIM{1 + (k + self.session) % SYMBOLS}".encode()
        some = [of_number(m, k + 1, symbol) for m in self.messages[self.read[k] : self.read[k] + n]]
        hand_in(self.service, self.books, some, self.name, self.at + 1)
        self.read[k] += len(some)
        self.at += len(some)

    def change(self) -> None:
        self.session, self.at, self.read = self.session + 1, 0, [0] * SYMBOLS
        self.service.ingest._begin_session(self.books, self.name, self.service.ingest.poller.now_ns())

    def clock(self) -> None:
        for _ in range(self.rng.choice([1, SELECT_CLOCKS])):
            clock(self.service)

    def report(self) -> None:
        self.service.ingest.report_rows()

    def disk(self) -> None:
        self.full = not self.full

    def checkpoint(self) -> None:
        self.service.checkpoint()

    def restart(self) -> None:
        self.service.stop(clean=False)
        self.service, self.books = opened(self.folder, self.day, scored=1)
        self.refuse()
        self.full = False

    def end(self) -> list[str]:
        self.full = False
        self.report()
        self.service._write_alerts()
        self.service.stop(clean=False)
        return [a.id for a in told(self.folder)]


def state(service: Service, books: ItchBooks) -> dict[str, Any]:
    """All that decides the future."""
    return {
        "desk": service.desk.state_hash(),
        "clocks": service.desk.clocks,
        "engine": books.engine.save(),
        "chosen": books.stage.chosen,
        "seen": books._seen,
        "names": {i: e.id for i, e in books.names.items()},
        "session": books.session,
    }


@pytest.mark.parametrize("seeds", [range(4), range(4, 8)])
def test_a_restart_has_what_the_process_had(
    market: Market, tmp_path: Path, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "drop_before", lambda writer, number: 0)  # the whole journal stays, for the comparison
    monkeypatch.setattr(services, "named", with_an_own_table)
    alerts = sum(len(random_run(market, tmp_path / str(seed), random.Random(seed))) for seed in seeds)
    assert alerts > 0


def random_run(market: Market, top: Path, rng: random.Random) -> list[str]:
    """STEPS steps, with a restart of a copy behind every fourth; the ids that were told."""
    run = Run(top / "j", market, rng)
    likely = {"packets": 10, "change": 1, "clock": 6, "report": 3, "disk": 2, "checkpoint": 3, "restart": 2}
    for n in range(STEPS):
        (step,) = rng.choices(list(likely), list(likely.values()))
        getattr(run, step)()
        if n % 4 == 3:
            copy = top / f"copy{n}"
            shutil.copytree(run.folder, copy)
            again, same = opened(copy, market[1], scored=1)
            assert state(again, same) == state(run.service, run.books), (n, step)
            again.stop(clean=False)
    ids = run.end()
    assert len(ids) == len(set(ids))
    whole = top / "whole"
    whole.mkdir()
    assert {*ids} == {*from_the_beginning(run.folder, whole, market[1])}
    return ids


def from_the_beginning(folder: Path, whole: Path, day: str) -> list[str]:
    """Ids that the journal alone gives."""
    for segment in folder.glob("*.journal"):
        shutil.copy(segment, whole)
    again, _ = opened(whole, day, scored=1)
    again.stop(clean=False)
    return [a.id for a in told(whole)]
