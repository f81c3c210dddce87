"""What many clients look at, encoded once: documents of the hub as JSON, at most so often."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from microrisk import __version__
from microrisk.evaluate.words import FEATURE_WORDS, HEAD_WORDS
from microrisk.monitor.hub import LIVE, SCHEMA, Hub
from microrisk.monitor.web.wire import LAYOUT
from microrisk.spec.features import FEATURES
from microrisk.spec.weightfile import HEADS

ENCODER = msgspec.json.Encoder()
KEPT_S = 0.25
"""An encoded document is handed out this long before the hub is asked again."""
RECENT = 24
CONSOLIDATED = 200
"""Symbols on the overview, those with something to say first; the route /api/consolidated has all."""


class Shared:
    """The hub's documents for the websocket."""

    def __init__(self, hub: Hub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.hub, self._clock = hub, clock
        self._made: dict[str, tuple[float, bytes]] = {}
        self._makers = {"status": self._status, "overview": self._overview, "latency": self._latency}

    def document(self, name: str) -> bytes:
        """JSON of "status", "overview" or "latency"."""
        now = self._clock()
        at, made = self._made.get(name, (-1.0, b""))
        if not made or now - at >= KEPT_S:
            made = ENCODER.encode({"type": name} | self._makers[name]())
            self._made[name] = now, made
        return made

    def _status(self) -> dict[str, Any]:
        overview = self.hub.overview()
        states: dict[str, int] = {}
        for feed in overview["feeds"]:
            states[feed.state] = states.get(feed.state, 0) + 1
        kept = ("ts_ns", "uptime_s", "rate", "messages", "events", "instruments", "scored", "alerts")
        return {k: overview.get(k, 0) for k in kept} | {"states": states, "notices": overview.get("notices", [])}

    def _overview(self) -> dict[str, Any]:
        overview = self.hub.overview()
        symbols = sorted(self.hub.consolidated(), key=lambda c: (not c.crossed, not c.locked, -(c.gap_bp or 0.0)))
        return {
            "overview": overview,
            "recent": self.hub.alerts(max(0, int(overview.get("alerts", 0)) - RECENT))[::-1],
            "consolidated": symbols[:CONSOLIDATED],
            "symbols": len(symbols),
        }

    def _latency(self) -> dict[str, Any]:
        feeds = [{"name": f.name, "state": f.state, "latency": f.latency} for f in self.hub.overview()["feeds"]]
        return {"latency": self.hub.latency(), "feeds": feeds}


def hello(role: str) -> bytes:
    """The first message of a websocket: what everything that follows means."""
    return ENCODER.encode(
        {
            "type": "hello",
            "schema": SCHEMA,
            "server": __version__,
            "role": role,
            "live": LIVE,
            "layout": LAYOUT,
            "heads": [{"name": h, "words": HEAD_WORDS[h]} for h in HEADS],
            "features": [
                {
                    "name": f.name,
                    "formula": f.formula,
                    "high": FEATURE_WORDS[f.name][0],
                    "low": FEATURE_WORDS[f.name][1],
                }
                for f in FEATURES
            ],
        }
    )
