"""What a report shows, as plain arrays and numbers: the input of `evaluate.report.write_report`.

All times are ns UTC (int64). Prices and sizes are already in the units that a reader expects (floats); `None` means
"not known" and is printed as a dash. Arrays of one object have equal length unless their line says otherwise.
The helpers of `evaluate.report_build` make most of these objects from engine records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EvaluationError

MERGE_NS = 5_000_000_000
"""Alerts of an instrument at most this far apart are one false alarm, as in the harness."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Driver:
    """One feature that drove an alert.

    Attributes
    ----------
    feature : name of spec.features
    sigma : its code in standard deviations (code / 16), signed, -8..8
    """

    feature: str
    sigma: float


@dataclass(frozen=True)
class Alert:
    """One alert: a head of an instrument went into alarm.

    Attributes
    ----------
    ns : the core's time of the row
    instrument : id such as "DEMO.SIM"
    head : name of spec.weightfile.HEADS
    bits : smoothed level at that row, -log2(tail probability)
    drivers : largest first, at most ten
    episode : index into Report.episodes, None for a false alarm
    """

    ns: int
    instrument: str
    head: str
    bits: float
    drivers: tuple[Driver, ...] = ()
    episode: int | None = None


@dataclass(frozen=True)
class PlantedEpisode:
    """One planted episode and what became of it.

    Attributes
    ----------
    kind : "layering", "stuffing", "withdrawal", "ignition", "gap", "wash"
    start_ns, end_ns : when it was active
    strength : the injector's dial, about 0.3..1.2
    instrument : id
    alert : index into Report.alerts of the first alert in [start, end + 5 s], None when it was missed
    """

    kind: str
    start_ns: int
    end_ns: int
    strength: float
    instrument: str
    alert: int | None = None

    @property
    def found(self) -> bool:
        """An alert overlaps [start, end + 5 s]."""
        return self.alert is not None


@dataclass(frozen=True)
class HeadTrace:
    """Level of one head of one instrument over time, the maximum of each 250 ms bin.

    Attributes
    ----------
    instrument, head : whose
    ns : int64[n], starts of the bins, rising
    bits : float64[n], -log2(tail probability), NaN for a bin without a row
    on_bits : threshold at which the head goes into alarm, None while uncalibrated
    off_bits : threshold below which it leaves, None while uncalibrated
    """

    instrument: str
    head: str
    ns: Ints
    bits: Floats
    on_bits: float | None = None
    off_bits: float | None = None


@dataclass(frozen=True)
class Trades:
    """Prints: ns int64[n], px float64[n], qty float64[n], aggressor int8[n] (+1 bought, -1 sold)."""

    ns: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    px: Floats = field(default_factory=lambda: np.zeros(0))
    qty: Floats = field(default_factory=lambda: np.zeros(0))
    aggressor: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))


@dataclass(frozen=True)
class BookWindow:
    """Resting liquidity around one alert or one missed episode.

    Attributes
    ----------
    instrument : id
    ns : int64[t], starts of equally long columns (50 ms is a good choice), rising
    px : float64[p], price of each row, rising, one tick apart
    bid, ask : float64[p, t], resting size of that side at that price in that column; 0 = nothing there
    best_bid, best_ask : float64[t], NaN for an empty side
    trades : prints in the window
    """

    instrument: str
    ns: Ints
    px: Floats
    bid: Floats
    ask: Floats
    best_bid: Floats
    best_ask: Floats
    trades: Trades = field(default_factory=Trades)

    def __post_init__(self) -> None:
        shape = (len(self.px), len(self.ns))
        for name in ("bid", "ask"):
            if getattr(self, name).shape != shape:
                raise EvaluationError(f"book window: {name} is {getattr(self, name).shape}, prices x times is {shape}")
        if len(self.best_bid) != shape[1] or len(self.best_ask) != shape[1]:
            raise EvaluationError(f"book window: best prices need one value for each of {shape[1]} columns")


@dataclass(frozen=True)
class Latency:
    """Histogram of per-message time, wire bytes to alert decision.

    Attributes
    ----------
    edges_ns : float64[n + 1] or float64[n], lower edges of the buckets (`_core.latency_edges()` as it is)
    counts : uint64[n]
    """

    edges_ns: NDArray[np.generic]
    counts: NDArray[np.generic]


@dataclass(frozen=True)
class ModelFacts:
    """What scored: `table` "own" or "generic", `level` "calibrated" or "uncalibrated", `mask` 32-bit feature mask."""

    name: str
    format_hash: str
    table: str = "generic"
    level: str = "calibrated"
    mask: int = 0xFFFFFFFF
    backend: str = "cpu"
    trained_on: str = ""


@dataclass(frozen=True)
class Headline:
    """Size and speed of the run.

    Attributes
    ----------
    events, messages : book events applied, messages read
    rows : rows scored
    seconds : wall-clock time from first byte to last alert decision
    market_seconds : time span of the recording
    bytes_read : size of the input, None when unknown
    """

    events: int
    messages: int
    rows: int
    seconds: float
    market_seconds: float
    bytes_read: int | None = None


@dataclass(frozen=True)
class Report:
    """Everything on the page, in the order of the page.

    Attributes
    ----------
    title : heading
    source : one line that says what was read ("simulated market, seed 7, as ITCH 5.0 bytes")
    headline : Headline
    model : ModelFacts
    instruments : ids
    episodes : every planted episode; empty for a run without truth
    alerts : every alert, in time order; those without an episode are listed as false alarms when there are episodes
    traces : one HeadTrace a head and instrument
    books : (what, index, BookWindow); what is "episode" (index into episodes) or "alert" (index into alerts)
    latency : histogram, None when it was not measured
    integrity : findings by name (engine.integrity())
    findings : first findings in words, for example "gap in DEMO.SIM at 09:31:02.5, sequence 881", at most 20 shown
    commands : (who it is for, command line)
    notes : plain sentences printed at the end (seeds, limits)
    """

    title: str
    source: str
    headline: Headline
    model: ModelFacts
    instruments: Sequence[str]
    episodes: Sequence[PlantedEpisode]
    alerts: Sequence[Alert]
    traces: Sequence[HeadTrace]
    books: Sequence[tuple[str, int, BookWindow]]
    integrity: Mapping[str, int]
    latency: Latency | None = None
    findings: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    def delay_s(self, episode: int) -> float | None:
        """First alert minus start in seconds (never below 0), None when the episode was missed."""
        e = self.episodes[episode]
        return None if e.alert is None else max(self.alerts[e.alert].ns - e.start_ns, 0) / 1e9

    def false_alarms(self) -> list[Alert]:
        """The first alert of each false alarm: alerts without an episode, those at most 5 s apart being one.

        Without planted episodes nobody knows what is false, so the list is empty.
        """
        out: list[Alert] = []
        last: dict[str, int] = {}
        for a in sorted(self.alerts, key=lambda a: a.ns):
            if a.episode is None and self.episodes:
                if a.ns - last.get(a.instrument, a.ns - MERGE_NS - 1) > MERGE_NS:
                    out.append(a)
                last[a.instrument] = a.ns
        return out
