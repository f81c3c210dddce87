"""Other packages that read the same input, as far as they are installed: the other side of the benchmark.

A rival gets its bytes ready in memory, in pieces of whole messages, and only its own calls are timed; ours reads its
file. Each one asserts which package its class came from (a package may install itself under another one's name), and
gives an answer to compare where it has one.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from microrisk.pipeline.bench_input import Input, is_image
from microrisk.pipeline.bench_stages import DEPTH, Best, Contender, Done, Watch

SLOW = 1_000_000
"""Messages that a rival gets which makes one Python object of each."""
MISSING = {"itchcpp": "itchcpp", "itch_book": "itch-book", "databento_dbn": "databento-dbn", "polars": "polars"}
"""Module -> what pip calls it."""
READS = {"itch50": ("itchcpp", "itch_book"), "dbn": ("databento_dbn",), "lobster": ("polars", "pyarrow"),
         "tardis": ("polars", "pyarrow"), "bitstamp": ("polars", "pyarrow")}  # fmt: skip


def find_rivals(given: Input, folder: Path) -> tuple[list[Contender], list[str]]:
    """Contenders for this input, and a sentence for each rival that is not here and for formats that nobody reads."""
    names = READS.get(given.format, ())
    if given.format == "itch50" and given.itch is None:
        return [], ["the ITCH rivals read one length-prefixed file: they take no part with captures or several files"]
    if not names:
        return [], [f"no rival that is known here reads {given.format}"]
    missing = [n for n in names if find_spec(n) is None]
    notices = [f"{MISSING.get(n, n)} is not installed: pip install {MISSING.get(n, n)}" for n in missing]
    out: list[Contender] = []
    for name in names:
        if name not in missing:
            out += _MAKERS[name](given, folder)
    return out, notices


def owned(thing: Any, package: str) -> Any:
    """The thing, when it was defined in `package`; RuntimeError when something else took its name."""
    module = str(getattr(thing, "__module__", ""))
    if module.partition(".")[0] != package:
        raise RuntimeError(
            f"{thing!r} comes from {module or 'nowhere'}, not from {package}: figures would be another's"
        )
    return thing


def _timed(pieces: Iterable[bytes], use: Callable[[bytes], object]) -> Done:
    """The time inside `use` (items 0), cutting the pieces not counted."""
    total = Done(0, 0.0, 0.0)
    for piece in pieces:
        watch = Watch()
        use(piece)
        part = watch.done(0)
        total.seconds, total.cpu = total.seconds + part.seconds, total.cpu + part.cpu
    return total


# ---- ITCH ----------------------------------------------------------------------------------------------------------


def _itchcpp(given: Input, folder: Path) -> list[Contender]:
    package, book = import_module("itchcpp"), import_module("itchcpp.book")
    parser, manager = owned(package.MessageParser, "itchcpp"), owned(book.BookManager, "itchcpp")

    def parse(check: bool) -> Done:
        count = 0

        def use(piece: bytes) -> None:
            nonlocal count
            count += sum(1 for _ in parser().parse_stream(piece))

        return replace(_timed(given.pieces(SLOW), use), items=count)

    def books(check: bool) -> Done:
        made = manager()
        done = _timed(given.pieces(), made.process_stream)
        best = Lazy(lambda names: _itchcpp_best(made, names))
        return replace(done, items=given.frames[-1][1], answer={"best": best} if check else {})

    short = f"one Python object a message; first {SLOW:,}"
    return [
        Contender("parse", "itchcpp", "messages", parse, short),
        Contender("books", "itchcpp", "messages", books, "BookManager"),
    ]


class Lazy:
    """Best prices that can only be asked for by symbol."""

    def __init__(self, ask: Callable[[Iterable[str]], dict[str, Best]]) -> None:
        self.ask = ask


def _itchcpp_best(manager: Any, names: Iterable[str]) -> dict[str, Best]:
    out: dict[str, Best] = {}
    for name in names:
        b = manager.book_for_symbol(name).bbo()
        bid = (round(b.bid_price * 10_000), int(b.bid_shares)) if b.has_bid else (0, 0)
        ask = (round(b.ask_price * 10_000), int(b.ask_shares)) if b.has_ask else (0, 0)
        if b.has_bid or b.has_ask:
            out[name] = (*bid, *ask)
    return out


def _itch_book(given: Input, folder: Path) -> list[Contender]:
    package = import_module("itch_book")
    made = owned(package.Session, "itch_book")

    def session(tables: list[str], depth: int, check: bool) -> Done:
        s = made(tables=tables, depth=depth, symbols=[])
        last = _LastBest() if check and tables else None

        def use(piece: bytes) -> None:
            s.feed(np.frombuffer(piece, np.uint8))
            taken = s.take_bbo() if tables else None
            if depth:
                s.take_depth()
            if last is not None:
                last.add(taken)

        done = _timed(given.pieces(), use)
        stats = s.stats()
        answer: dict[str, Any] = {"live_orders": int(stats["live_orders"]), "messages": int(stats["messages"])}
        if last is not None:
            answer["best"] = last.named(s.take_symbols())
        return replace(done, items=int(stats["messages"]), answer=answer if check else {})

    def parquet(check: bool) -> Done:
        run = owned(import_module("itch_book.cli").main, "itch_book")
        words = ["convert", str(given.itch), str(folder / "itch_book"), "--tables", "bbo", "--no-md5",
                 "--price-type", "fixed", "--date", given.source.date or "2000-01-03"]  # fmt: skip
        said = io.StringIO()
        watch = Watch()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(words)
        done = watch.done(given.frames[-1][1])
        if code != 0:
            raise RuntimeError(f"itch2parquet {' '.join(words)} ended with {code}: {said.getvalue()[-300:]}")
        return done

    plain = "queue kept, references checked"
    return [
        Contender("books", "itch-book", "messages", lambda check: session([], 0, check), plain),
        Contender("books + BBO", "itch-book", "messages", lambda check: session(["bbo"], 0, check), plain),
        Contender(f"books + depth {DEPTH}", "itch-book", "messages", lambda check: session([], DEPTH, check), plain),
        Contender("BBO to Parquet", "itch-book", "messages", parquet, "itch2parquet, two threads"),
    ]


class _LastBest:
    """The last best prices of every locate out of itch-book's table."""

    def __init__(self) -> None:
        self._rows: dict[int, Best] = {}

    def add(self, table: Any) -> None:
        """The next rows."""
        locate = table["locate"]
        if not len(locate):
            return
        found, back = np.unique(locate[::-1], return_index=True)
        at = len(locate) - 1 - back
        sides = [table[name][at].tolist() for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")]
        self._rows |= {int(i): (int(a), int(b), int(c), int(d)) for i, a, b, c, d in zip(found, *sides, strict=True)}

    def named(self, symbols: Iterable[tuple[Any, ...]]) -> dict[str, Best]:
        """By symbol; `symbols` begins with locate and symbol."""
        names = {int(row[0]): str(row[1]).strip() for row in symbols}
        return {names.get(i, f"#{i}"): best for i, best in self._rows.items() if any(best)}


# ---- DBN -----------------------------------------------------------------------------------------------------------


def _dbn(given: Input, folder: Path) -> list[Contender]:
    package = import_module("databento_dbn")
    decoder = owned(package.DBNDecoder, "databento_dbn")

    def parse(check: bool) -> Done:
        count, total = 0, Done(0, 0.0, 0.0)
        for path in given.files:
            made = decoder()

            def use(piece: bytes, made: Any = made) -> None:
                nonlocal count
                made.write(piece)
                count += len(made.decode())

            part = _timed(_blocks(path), use)
            total = replace(total, seconds=total.seconds + part.seconds, cpu=total.cpu + part.cpu)
            count -= 1  # the metadata
        return replace(total, items=count, answer={"messages": count})

    return [Contender("parse", "databento-dbn", "messages", parse, "one Python object a record")]


def _blocks(path: Path, size: int = 4 << 20) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


# ---- CSV -----------------------------------------------------------------------------------------------------------


def _polars(given: Input, folder: Path) -> list[Contender]:
    pl = import_module("polars")
    read = owned(pl.read_csv, "polars")
    return [_csv(given, "polars", lambda path, header: len(read(path, has_header=header, infer_schema_length=10_000)))]


def _pyarrow(given: Input, folder: Path) -> list[Contender]:
    csv = import_module("pyarrow.csv")
    read = owned(csv.read_csv, "pyarrow")

    def rows(path: Path, header: bool) -> int:
        return int(read(path, read_options=csv.ReadOptions(autogenerate_column_names=not header)).num_rows)

    return [_csv(given, "pyarrow", rows)]


def _csv(given: Input, who: str, read: Callable[[Path, bool], int]) -> Contender:
    """Reading the text into columns, no book: what a script without a book begins with."""
    files = [p for p in given.files if not is_image(p)]
    header = given.format != "lobster"

    def run(check: bool) -> Done:
        watch = Watch()
        return watch.done(sum(read(path, header) for path in files))

    return Contender("parse", who, "rows", run, "text to columns, all cores; no events")


_MAKERS: dict[str, Callable[[Input, Path], list[Contender]]] = {
    "itchcpp": _itchcpp,
    "itch_book": _itch_book,
    "databento_dbn": _dbn,
    "polars": _polars,
    "pyarrow": _pyarrow,
}
