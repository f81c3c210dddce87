"""Whatever happens in whatever order, a restart at any place has what the process had."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import OutputError
from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.books import ItchBooks
from microrisk.monitor.journal import Writer
from microrisk.monitor.service import Service
from tests.monitor.test_sessions import clock, hand_in, opened, renamed, told

Market = tuple[list[bytes], str]
STEPS = 40


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    session = planted(2, 700.0)
    path = write_itch(session, tmp_path_factory.mktemp("market") / "market.itch")
    return unframe(path.read_bytes()), session_date(session)


class Run:
    """A service without its threads, and what is done to it at random."""

    def __init__(self, folder: Path, market: Market, rng: random.Random) -> None:
        self.folder, self.rng, (self.messages, self.day) = folder, rng, market
        self.service, self.books = opened(folder, self.day)
        self.session, self.at = 0, 0
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
        n = self.rng.randrange(1, 1500)
        some = self.messages[self.at : self.at + n]
        if self.session % 2:
            some = renamed(some, b"SIM1", b"OTHER")
        hand_in(self.service, self.books, some, self.name, self.at + 1)
        self.at += len(some)

    def change(self) -> None:
        self.session, self.at = self.session + 1, 0
        self.service.ingest._begin_session(self.books, self.name, self.service.ingest.poller.now_ns())

    def clock(self) -> None:
        clock(self.service)

    def report(self) -> None:
        self.service.ingest.report_rows()

    def disk(self) -> None:
        self.full = not self.full

    def checkpoint(self) -> None:
        self.service.checkpoint()

    def restart(self) -> None:
        self.service.stop(clean=False)
        self.service, self.books = opened(self.folder, self.day)
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


@pytest.mark.parametrize("seed", range(8))
def test_a_restart_has_what_the_process_had(
    market: Market, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "drop_before", lambda writer, number: 0)  # the whole journal stays, for the comparison
    rng = random.Random(seed)
    run = Run(tmp_path / "j", market, rng)
    likely = {"packets": 10, "change": 1, "clock": 6, "report": 3, "disk": 2, "checkpoint": 3, "restart": 2}
    for n in range(STEPS):
        (step,) = rng.choices(list(likely), list(likely.values()))
        getattr(run, step)()
        if n % 4 == 3:
            copy = tmp_path / f"copy{n}"
            shutil.copytree(run.folder, copy)
            again, same = opened(copy, market[1])
            assert state(again, same) == state(run.service, run.books), (n, step)
            again.stop(clean=False)
    ids = run.end()
    assert len(ids) == len(set(ids)) > 0
    whole = tmp_path / "whole"
    whole.mkdir()
    assert {*ids} == {*from_the_beginning(run.folder, whole, market[1])}


def from_the_beginning(folder: Path, whole: Path, day: str) -> list[str]:
    """Ids that the journal alone gives."""
    for segment in folder.glob("*.journal"):
        shutil.copy(segment, whole)
    again, _ = opened(whole, day)
    again.stop(clean=False)
    return [a.id for a in told(whole)]
