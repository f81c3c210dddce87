"""The rival `cryptofeed` in its own environment: its books of a scripted venue, and what its callback was given.

Knows nothing of this project: the standard library and cryptofeed alone. The first argument is JSON (`Task`). Commands
come as lines on stdin, each is answered by a line of JSON: `count` (updates handed to the callback), `end` (the books;
with `trail`, a file of what was handed out: time, number, digest of the book).

cryptofeed's exchange classes are used as they are; addresses are set on a subclass, and because it takes nothing but
`wss://` addresses, the connection that it has made gets the plain one. Its list of symbols, which it would fetch, is
given through its own `Symbols`.
"""

import asyncio
import hashlib
import json
import logging
import struct
import sys
import threading
import time
from array import array
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, WebsocketEndpoint
from cryptofeed.defines import L2_BOOK
from cryptofeed.exchanges import Binance, BinanceFutures, Bitstamp, Kraken
from cryptofeed.symbols import Symbols

CLASSES = {"Binance spot": Binance, "Binance futures": BinanceFutures, "Bitstamp": Bitstamp, "Kraken v1": Kraken}
ROW = struct.Struct("<qqQ")


@dataclass
class Task:
    """What to do.

    Attributes
    ----------
    names : cryptofeed's name -> the venue's
    options : of cryptofeed's feed, such as checksum_validation
    trail : file of what the callback was given, product by product; "" = only when it was called
    """

    venue: str
    ws: str
    rest: str
    names: dict
    options: dict = field(default_factory=dict)
    depth: int = 0
    trail: str = ""


def aimed(task: Task) -> type:
    """The exchange class with other addresses."""
    kind = CLASSES[task.venue]
    before = kind.websocket_endpoints[0]
    place = task.ws.partition("://")[2]
    options = {k: v for k, v in before.options.items() if k == "compression"}

    class Aimed(kind):
        def connect(self):
            made = super().connect()
            for connection, *_ in made:
                connection.address = connection.address.replace("wss://", "ws://", 1)
            return made

    Aimed.websocket_endpoints = [WebsocketEndpoint(f"wss://{place}", limit=before.limit, options=options)]
    Aimed.rest_endpoints = [RestEndpoint(task.rest, routes=kind.rest_endpoints[0].routes)]
    return Aimed


class Log(logging.Handler):
    """Counts what cryptofeed says is wrong."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def emit(self, record):
        text = record.getMessage().partition(": ")[2] or record.getMessage()
        text = text.partition(" in ")[0].partition(" - ")[0][:80]
        if record.exc_info and record.exc_info[0]:
            text += f" ({record.exc_info[0].__name__})"
        self.counts[text] = self.counts.get(text, 0) + 1


class Client:
    """Callback and answers."""

    def __init__(self, task: Task):
        self.task, self.stamps, self.books = task, array("q"), {}
        self.trails = {venue: [] for venue in task.names.values()}
        self.log = Log()

    async def timed(self, book, receipt):
        if book.delta is not None:
            self.stamps.append(time.monotonic_ns())
        self.books[book.symbol] = book

    async def followed(self, book, receipt):
        now = time.monotonic_ns()
        self.stamps.append(now)
        self.books[book.symbol] = book
        self.trails[self.task.names[book.symbol]].append((now, self._number(book), digest(levels(book))))

    def _number(self, book):
        """What the callback is told about how new the book is, in the venue's words."""
        if self.task.venue == "Kraken v1":
            times = [row[2] for part in book.raw for side in part.values() if isinstance(side, list) for row in side]
            whole, _, micros = max(times).partition(".")
            return (int(whole) * 1_000_000 + int(micros)) * 1000
        if self.task.venue == "Bitstamp":
            return int(book.raw["data"]["microtimestamp"] if "data" in book.raw else book.raw["microtimestamp"])
        return book.sequence_number

    def end(self):
        if self.task.trail:
            with Path(self.task.trail).open("wb") as out:
                for name, rows in self.trails.items():
                    out.write(json.dumps([name, len(rows)]).encode() + b"\n")
                    out.writelines(ROW.pack(*row) for row in rows)
        books = {self.task.names[symbol]: levels(book) for symbol, book in self.books.items()}
        return {"books": books, "stamps": [] if self.task.trail else self.stamps.tolist(), "said": self.log.counts}


def levels(book):
    """Bids and asks, best first, prices and sizes in 1e-8."""
    unit = Decimal(10) ** 8
    return [[(int(p * unit), int(q * unit)) for p, q in side.to_list()] for side in (book.book.bids, book.book.asks)]


def digest(sides):
    """Of a book, as the checker of the other side makes it."""
    bids, asks = (struct.pack(f"<{2 * len(s)}q", *(x for row in s for x in row)) for s in sides)
    body = len(bids).to_bytes(8, "little") + bids + asks
    return int.from_bytes(hashlib.blake2b(body, digest_size=8).digest(), "little")


def answer(client, loop):
    """Commands, in a thread of their own; the books are read in the loop."""
    for line in sys.stdin:
        if line.strip() == "count":
            print(json.dumps({"n": len(client.stamps), "cpu_ns": time.process_time_ns()}), flush=True)
        elif line.strip() == "end":
            ended = threading.Event()
            loop.call_soon_threadsafe(tell_end, client, ended)
            ended.wait()
    loop.call_soon_threadsafe(loop.stop)


def tell_end(client, ended):
    print(json.dumps(client.end()), flush=True)
    ended.set()


def main():
    task = Task(**json.loads(sys.argv[1]))
    kind = aimed(task)
    Symbols.set(kind.id, task.names, {"instrument_type": {}})
    client = Client(task)
    options = {"max_depth": task.depth} if task.depth else {}
    feed = kind(
        symbols=list(task.names),
        channels=[L2_BOOK],
        callbacks={L2_BOOK: client.followed if task.trail else client.timed},
        retries=-1,
        **options,
        **task.options,
    )
    handler = FeedHandler(config={"uvloop": True, "log": {"disabled": True}})
    logging.getLogger("feedhandler").addHandler(client.log)
    logging.getLogger("feedhandler").propagate = False
    handler.add_feed(feed)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    threading.Thread(target=answer, args=(client, loop), daemon=True).start()
    handler.run(start_loop=False, install_signal_handlers=False)
    loop.run_forever()


if __name__ == "__main__":
    main()
