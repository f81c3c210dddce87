"""Runs where nautilus_trader is installed: what its own catalog and order book make of a folder.

python nautilus_reader.py CATALOG INSTRUMENT OUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.persistence.catalog import ParquetDataCatalog

F_LAST, F_MBP = 128, 16
DIGITS = 8


def best(book: OrderBook, px: Any, taker: OrderSide) -> list[str | None]:
    """Price and size of the best level; their best_bid_size is the size of its first order only."""
    return [None, None] if px is None else [str(px), f"{book.get_quantity_for_price(px, taker):.{DIGITS}f}"]


def main(folder: str, name: str, out: str) -> None:
    catalog = ParquetDataCatalog(folder)
    deltas = catalog.order_book_deltas([name])
    levels = any(d.flags & F_MBP for d in deltas)
    book = OrderBook(InstrumentId.from_str(name), BookType.L2_MBP if levels else BookType.L3_MBO)
    path: list[Any] = []
    for d in deltas:
        book.apply_delta(d)
        if d.flags & F_LAST:
            bid, ask = book.best_bid_price(), book.best_ask_price()
            state = best(book, bid, OrderSide.SELL) + best(book, ask, OrderSide.BUY)
            if not path or path[-1][1:] != state:
                path.append([d.sequence, *state])
    queues = [
        [[str(level.price), [[o.order_id, str(o.size)] for o in level.orders()]] for level in half]
        for half in (book.bids(), book.asks())
    ]
    trades = [
        [str(t.price), str(t.size), t.aggressor_side.name, t.trade_id.value, t.ts_event, t.ts_init]
        for t in catalog.trade_ticks([name])
    ]
    quotes = [
        [str(q.bid_price), str(q.bid_size), str(q.ask_price), str(q.ask_size), q.ts_event]
        for q in catalog.quote_ticks([name])
    ]
    init = [d.ts_init for d in deltas]
    result = {"path": path, "queues": queues, "trades": trades, "quotes": quotes, "sorted": init == sorted(init)}
    Path(out).write_text(json.dumps(result | {"deltas": len(deltas)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
