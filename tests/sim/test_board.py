"""The real driver on a serial port behind which the board's top is simulated."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from microrisk.errors import BackendUnavailable
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.model.synthetic import extreme_codes, random_codes, random_weights
from microrisk.pipeline import score, scoring
from microrisk.score.failover import Failover
from microrisk.score.fpga import PORT, FpgaScorer, LinkFailed
from microrisk.score.registry import load_model
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS
from sim.board import SimulatedBoard

COUNT, SEED = 400, 6
BATCH, SILENT_AFTER = 500, 5_000
"""Rows, and bytes of answers: in the second or third batch."""
PATIENCE = {"wait_s": 5.0, "quiet_s": 0.3}
"""The simulated line is some thirty times slower than the real one."""


@pytest.fixture(scope="module")
def weights():
    return load_model("sparse")


@pytest.fixture(scope="module")
def codes():
    return np.concatenate([extreme_codes(), random_codes(COUNT, SEED)])


@pytest.fixture
def board(weights):
    with SimulatedBoard(weights) as made:
        yield made


@pytest.fixture
def scorer(board, weights):
    made = FpgaScorer(board.port, **PATIENCE)
    made.load(weights)
    yield made
    made.close()


def counters(scorer):
    assert scorer.unavailable() is None
    return scorer.identity.counters


def test_board_equals_reference(scorer, weights, codes, exercised):
    assert np.array_equal(scorer.score(codes), weights.compute(codes))
    found = counters(scorer)
    assert found["accepted"] >= len(codes) // scorer.identity.rows
    assert {n: c for n, c in found.items() if c} == {"accepted": found["accepted"]}
    exercised(f"scorer fpga: {len(codes)} rows through the simulated board's serial line, 0 differences")


def test_two_heads_named_backwards_and_a_mask(weights):
    mask = ALL_MASK & ~0b1010
    with SimulatedBoard(weights, ("exposure", "maxz"), mask=mask) as board:
        scorer = FpgaScorer(board.port, **PATIENCE)
        scorer.load(weights, mask)
        rows = random_codes(50, 2)
        assert scorer.identity.heads == ("maxz", "exposure")
        assert np.array_equal(scorer.score(rows), weights.compute(rows, mask))
        assert scorer.score(rows[:0]).shape == (0, len(HEADS))
        scorer.close()


class Damage:
    """Changes one byte in so many, however they are dealt out; `hits` counts.

    The numbers are such that no two attempts in a row meet it in their first frame.
    """

    def __init__(self, every, change):
        self.every, self.change, self.seen, self.hits = every, change, 0, 0

    def __call__(self, data):
        out = bytearray()
        for byte in data:
            self.seen += 1
            wrong = self.seen % self.every == 0
            self.hits += wrong
            out += self.change(byte) if wrong else bytes([byte])
        return bytes(out)


def flipped(byte):
    return bytes([byte ^ 0x10])


def lost(byte):
    return b""


def doubled(byte):
    return bytes([byte, byte])


@pytest.mark.parametrize("change", [flipped, lost, doubled])
def test_damage_on_the_way_to_the_board_is_asked_again(board, scorer, weights, codes, change):
    board.to_board = damage = Damage(1500, change)
    rows = codes[:150]
    assert np.array_equal(scorer.score(rows), weights.compute(rows))
    board.to_board = bytes
    assert damage.hits
    found = counters(scorer)
    assert found["crc"] + found["refused"] + found["framing"] + found["overrun"] > 0


def test_damage_on_the_way_back(board, scorer, weights, codes):
    board.from_board = damage = Damage(331, flipped)
    rows = codes[:100]
    assert np.array_equal(scorer.score(rows), weights.compute(rows))
    assert damage.hits


def test_a_line_that_is_always_damaged_ends_in_an_error(board, scorer, codes):
    board.to_board = Damage(20, flipped)
    with pytest.raises(LinkFailed, match="was asked 3 times"):
        scorer.score(codes[:20])


def test_a_board_that_falls_silent_is_replaced(board, scorer, weights, codes):
    scorer.wait_s = 0.3
    scorer.close()
    failover = Failover(scorer, weights)
    assert np.array_equal(failover.score(codes[:50]), weights.compute(codes[:50]))
    board.held.set()
    assert np.array_equal(failover.score(codes[50:100]), weights.compute(codes[50:100]))
    (switch,) = failover.switches
    assert (switch.source, switch.at_row) == ("fpga", 50)
    assert "was asked 3 times: no answer within 0.3 s" in switch.reason


def test_a_board_that_falls_silent_while_a_file_is_scored(board, monkeypatch, tmp_path, exercised):
    monkeypatch.setenv(PORT, board.port)
    whole = scoring._batches

    def smaller(chunks):
        for rows in whole(chunks):
            yield from np.array_split(rows, -(-len(rows) // BATCH))

    monkeypatch.setattr(scoring, "_batches", smaller)
    day = write_itch(simulate(17, 60.0, instruments=1), tmp_path / "sim_2025-01-06.itch")
    passed = 0

    def silent_in_the_middle(data):
        nonlocal passed
        passed += len(data)
        if passed > SILENT_AFTER:
            board.held.set()
        return data

    board.from_board = silent_in_the_middle
    expected = score(day, model="sparse", backend="cpu", out=tmp_path / "cpu", ticks=True)
    found = score(day, model="sparse", backend="fpga", out=tmp_path / "fpga", ticks=True)
    (switch,) = found.failovers
    assert switch["from"] == "fpga"
    assert "was asked 3 times: no answer" in switch["reason"]
    rows = found.rows + found.ticks
    assert 0 < switch["at_row"] < rows == expected.rows + expected.ticks
    assert found.alerts == expected.alerts
    assert pl.read_parquet(tmp_path / "fpga").equals(pl.read_parquet(tmp_path / "cpu"))
    exercised(
        f"scorer fpga: silent board at row {switch['at_row']} of {rows}, {found.backend} took over, 0 differences"
    )


def test_a_board_of_another_model_is_refused(board, weights):
    other = FpgaScorer(board.port, **PATIENCE)
    with pytest.raises(BackendUnavailable, match=f"weights {weights.heads_hash()}, this model needs .*hdl.board"):
        other.load(random_weights(3))
    with pytest.raises(BackendUnavailable, match="feature mask 0xffffffff, this model needs 0xfffffff0"):
        other.load(weights, 0xFFFFFFF0)
    other.close()


def test_a_board_of_another_format_is_refused(weights):
    with SimulatedBoard(weights, ("maxz",), format_hash="0123456789abcdef") as board:
        scorer = FpgaScorer(board.port, **PATIENCE)
        with pytest.raises(BackendUnavailable, match="format_hash 0123456789abcdef"):
            scorer.load(weights)
        scorer.close()


def test_no_board(board, weights, monkeypatch):
    monkeypatch.delenv(PORT, raising=False)
    assert f"set {PORT}" in FpgaScorer().unavailable()
    assert "cannot be opened" in FpgaScorer("/dev/no-such-port").unavailable()
    board.held.set()
    assert "no answer within 0.2 s" in FpgaScorer(board.port, wait_s=0.2).unavailable()
    with pytest.raises(BackendUnavailable, match="no answer"):
        FpgaScorer(board.port, wait_s=0.2).load(weights)
    with pytest.raises(RuntimeError, match="before load"):
        FpgaScorer(board.port).score(random_codes(1, 1))
