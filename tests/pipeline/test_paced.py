"""Paced replay: what is due when, what counts as late, and that counts survive the way into HdrHistogram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from microrisk.core import Engine, ItchDecoder, paced_edges, run_paced, spin
from microrisk.pipeline.bench_input import prepare
from microrisk.pipeline.bench_latency import LARGEST, decoded, encoded, latency, machine, quantile
from microrisk.pipeline.spine import Source
from microrisk.weights import Weights

EDGES = paced_edges()


def paced(data: bytes, n: int = 1 << 62, **pace: float) -> tuple[Engine, dict[str, Any]]:
    engine = Engine()
    return engine, run_paced(engine, ItchDecoder(), data, 0, n, **pace)


@pytest.fixture(scope="module")
def data(itch: Path) -> bytes:
    return itch.read_bytes()


def test_it_is_the_same_book(data: bytes) -> None:
    plain = Engine()
    decoder = ItchDecoder()
    plain.run_itch(decoder, data, 0, 1 << 62)
    engine, run = paced(data)
    assert run["messages"] == decoder.messages
    assert run["offset"] == len(data)
    assert engine.n_events == plain.n_events
    for i in plain.instruments():
        assert np.array_equal(engine.orders(int(i)), plain.orders(int(i)))
    assert run["latency"].sum() == run["service"].sum() == decoder.messages


def test_an_incomplete_end_stays(data: bytes) -> None:
    _, whole = paced(data, 1000)
    _, cut = paced(data[: whole["offset"] - 1])
    assert (cut["messages"], cut["offset"] < whole["offset"]) == (999, True)


def test_messages_wait_for_their_time(data: bytes) -> None:
    _, run = paced(data, 200, interval_ns=100_000.0)
    assert run["wall_ns"] >= 199 * 100_000
    assert run["waited_ns"] > 0.3 * run["wall_ns"]
    # a busy machine makes many of them late, never all
    assert quantile(run["latency"], 0.1) < 100_000


def test_late_messages_keep_their_due_time(data: bytes) -> None:
    """At a hopeless rate the n-th message is late by the sum of the services in front of it: no omission."""
    _, run = paced(data, 5000, interval_ns=1.0)
    assert run["late"] >= 4990
    backlog = run["wall_ns"] - 5000
    assert run["latency_max_ns"] == pytest.approx(backlog, rel=0.02)
    assert run["latency_sum_ns"] / 5000 > 5 * run["service_sum_ns"] / 5000
    # a loop that times its own calls would show no more than this
    assert run["service_sum_ns"] <= run["wall_ns"]


def test_all_at_once_measures_capacity(data: bytes) -> None:
    _, run = paced(data, 5000)
    assert run["waited_ns"] == 0
    assert run["latency_max_ns"] == pytest.approx(run["wall_ns"], rel=0.01)


def stamps(data: bytes, n: int) -> list[int]:
    out, at = [], 0
    while len(out) < n:
        out.append(int.from_bytes(data[at + 7 : at + 13], "big"))
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    return out


def test_recorded_times_scaled(data: bytes) -> None:
    n = 400
    ts = stamps(data, n)
    scale = 20e6 / (ts[-1] - ts[0])
    _, run = paced(data, n, time_scale=scale)
    assert run["wall_ns"] >= 20e6
    assert run["messages"] == n


def test_times_that_go_back_do_not_stop_it(data: bytes) -> None:
    first = bytearray(data[: 2 + int.from_bytes(data[:2], "big")])
    first[7:13] = (1 << 46).to_bytes(6, "big")
    _, run = paced(bytes(first) + data[len(first) : 4000], time_scale=1.0)
    assert run["messages"] > 50


def test_it_can_be_gone_on_with(data: bytes) -> None:
    engine, decoder = Engine(), ItchDecoder()
    one = run_paced(engine, decoder, data, 0, 100)
    two = run_paced(engine, decoder, data, one["offset"], 100)
    assert decoder.messages == one["messages"] + two["messages"] == 200


@pytest.mark.parametrize(
    "pace", [{"interval_ns": -1.0}, {"interval_ns": float("nan")}, {"interval_ns": 1.0, "time_scale": 1.0}]
)
def test_paces_that_cannot_be_meant(data: bytes, pace: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"interval_ns"):
        paced(data, 1, **pace)
    with pytest.raises(ValueError, match="behind the end"):
        run_paced(Engine(), ItchDecoder(), data, len(data) + 1, 1)
    with pytest.raises(ValueError, match="seconds"):
        spin(-1.0)


def test_recorded_best_prices_do_not_pile_up(data: bytes) -> None:
    engine = Engine()
    engine.record_bbo()
    run_paced(engine, ItchDecoder(), data, 0, 1 << 62)
    assert len(engine.take_bbo()) < 1 << 14


def test_an_empty_loop_tells_of_the_machine() -> None:
    run = spin(0.05)
    assert 50e6 <= run["wall_ns"] < 5e9
    assert run["gaps"].sum() > 1000
    assert run["gaps_max_ns"] >= run["away_max_ns"]
    found = machine(0.02)
    assert 0 < found["clock_ns"] < 10_000
    assert 0 <= found["away"]["share"] <= 1


# ---- histograms ----------------------------------------------------------------------------------------------------


def test_buckets_are_those_of_hdrhistogram() -> None:
    h = HdrHistogram(1, LARGEST, 2)
    assert [h.get_value_from_index(i) for i in (0, 255, 256, 4000)] == EDGES[[0, 255, 256, 4000]].tolist()
    assert np.all(np.diff(EDGES.astype(np.int64)) > 0)
    wide = np.diff(EDGES.astype(np.float64))[256:] / EDGES[256:-1]
    assert wide.max() <= 1 / 128


def test_counts_survive_the_encoding() -> None:
    rng = np.random.default_rng(5)
    counts = np.zeros(len(EDGES), np.uint64)
    counts[rng.integers(1, len(EDGES), 300)] = rng.integers(1, 10**6, 300)
    assert np.array_equal(decoded(encoded(counts)), counts)


def test_quantiles_as_hdrhistogram_tells_them() -> None:
    rng = np.random.default_rng(6)
    values = (rng.lognormal(6, 1.5, 20_000)).astype(np.int64) + 1
    counts = np.bincount(np.searchsorted(EDGES, values, side="right") - 1, minlength=len(EDGES)).astype(np.uint64)
    h = HdrHistogram(1, LARGEST, 2)
    for v in values:
        h.record_value(int(v))
    for q in (0.5, 0.9, 0.99, 0.999, 1.0):
        assert quantile(counts, q) == h.get_value_at_percentile(q * 100)
    assert quantile(np.zeros(4, np.uint64), 0.5) == 0


def test_runs_of_a_file(itch: Path, weights: Weights, tmp_path: Path) -> None:
    said: list[str] = []
    given = prepare(Source((str(itch),)), tmp_path)
    found = latency(given, weights, loads=(0.5,), seconds=0.05, say=said.append)
    assert said == ["latency: books", "latency: books and scoring"]
    assert [r["arrivals"] for r in found["runs"]] == ["evenly spaced", "recorded times, scaled"] * 2
    for run in found["runs"]:
        assert 0 < run["rate_per_second"] <= run["capacity_per_second"]
        lat = run["latency"]
        assert 0 < lat["p50"] <= lat["p99"] <= lat["p99.9"] <= lat["max"]
        assert decoded(lat["hdr"]).sum() == run["messages"]
