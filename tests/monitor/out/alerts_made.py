"""Alerts for tests of outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from microrisk.monitor.hub import SCHEMA, Alert


def made(n: int = 1, **other: Any) -> Alert:
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "id": f"{n:024x}",
        "n": n,
        "ts_ns": 1_736_164_800_000_000_000 + n,
        "instrument": "AAPL.XNAS",
        "feed": "nasdaq",
        "session": "S",
        "seq": n,
        "head": "vae",
        "heads": {"vae": 7},
        "level": 1e-5,
        "calibrated": True,
        "drivers": ["spread: wide"],
        "suspect": False,
        "bid": "1.00",
        "ask": "1.01",
        "backend": "cpu",
        "model": "default",
    }
    return Alert(**(values | other))


def until(true: Callable[[], Any], limit_s: float = 10.0) -> None:
    """Wait for a condition, with a deadline."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.002)
