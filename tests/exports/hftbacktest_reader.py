"""Runs where hftbacktest is installed: the best prices that its own backtest sees, row by row.

python hftbacktest_reader.py FILE.npz TICK LOT L2|L3 OUT.npz
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.data.validation import validate_event_order
from hftbacktest.types import event_dtype
from numba import njit


@njit  # type: ignore[untyped-decorator]
def best_path(hbt: Any, ts: Any, out: Any) -> int:
    n = 0
    while hbt.wait_next_feed(False, 10**18) == 2:
        depth = hbt.depth(0)
        ts[n] = hbt.current_timestamp
        out[n, 0], out[n, 1] = depth.best_bid, depth.best_bid_qty
        out[n, 2], out[n, 3] = depth.best_ask, depth.best_ask_qty
        n += 1
    return n


def main(path: str, tick: str, lot: str, kind: str, out: str) -> None:
    data = np.load(path)["data"]
    assert data.dtype == event_dtype, data.dtype
    validate_event_order(data)
    asset = BacktestAsset().data([path]).linear_asset(1.0).constant_order_latency(0, 0).no_partial_fill_exchange()
    asset = asset.tick_size(float(tick)).lot_size(float(lot))
    asset = asset.l3_fifo_queue_model() if kind == "L3" else asset.risk_adverse_queue_model()
    ts, found = np.zeros(len(data) + 1, np.int64), np.zeros((len(data) + 1, 4))
    hbt = HashMapMarketDepthBacktest([asset])
    n = best_path(hbt, ts, found)
    hbt.close()
    np.savez(out, ts=ts[:n], found=found[:n])


if __name__ == "__main__":
    main(*sys.argv[1:])
