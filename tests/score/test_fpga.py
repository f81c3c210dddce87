"""The driver of a board, against a board in Python on a pseudo-terminal: what it says, forgets, and does wrong."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import sys
import threading
import time
import tty
import zlib

import numpy as np
import pytest

from microrisk.errors import BackendUnavailable
from microrisk.model.synthetic import random_codes, random_weights
from microrisk.score.fpga import ATTEMPTS, PORT, FpgaScorer, LinkFailed, frame
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.uart import (
    CRC_BYTES,
    HEADER,
    IDENTITY_FIELDS,
    ROWS_MAX,
    SYNC,
    VERSION,
    Refusal,
    Type,
)
from microrisk.spec.weightfile import HEADS
from microrisk.weights import FORMAT_HASH

ALL_HEADS = (1 << len(HEADS)) - 1
PATIENCE = {"wait_s": 0.3, "quiet_s": 0.03}
LIMIT_S = 10.0
"""In which everything here has to end; the driver waits `wait_s` a few times at most."""


class FakeBoard:
    """Reads questions, computes with Weights.compute, answers; `says` may change what an answer sends."""

    def __init__(self, weights, heads=ALL_HEADS, **fields):
        self.weights, self.heads = weights, heads
        self.fields = {
            "version": VERSION, "features": N_FEATURES, "heads": heads, "rows": ROWS_MAX, "mask": ALL_MASK, **fields,
        }  # fmt: skip
        self.questions = []
        self.says = lambda answer, k: answer
        self._ended = threading.Event()

    def __enter__(self):
        self.master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.unplug()
        with contextlib.suppress(OSError):
            os.close(self._slave)

    def unplug(self):
        """Let the port be gone."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            os.close(self.master)

    def send(self, raw):
        os.write(self.master, raw)

    def _serve(self):
        came = bytearray()
        while not self._ended.is_set():
            if not select.select([self.master], [], [], 0.01)[0]:
                continue
            came += os.read(self.master, 4096)
            while (question := self._question(came)) is not None:
                self.questions.append(question)
                self.send(self.says(self._answer(*question), len(self.questions)))

    @staticmethod
    def _question(came):
        while came and came[0] != SYNC:
            del came[0]
        start = 1 + len(HEADER)
        if len(came) < start or len(came) < start + came[3] + CRC_BYTES:
            return None
        kind, sequence, length = came[1:start]
        payload = bytes(came[start : start + length])
        assert bytes(came[: start + length + CRC_BYTES]) == frame(kind, sequence, payload)
        del came[: start + length + CRC_BYTES]
        return kind, sequence, payload

    def _answer(self, kind, sequence, payload):
        if kind == Type.IDENTIFY:
            return frame(Type.IDENTITY, sequence, self._identity())
        codes = np.frombuffer(payload, np.int8).reshape(-1, N_FEATURES)
        carried = [k for k in range(len(HEADS)) if self.heads >> k & 1]
        results = self.weights.compute(codes, self.fields["mask"])[:, carried]
        return frame(Type.HEADS, sequence, results.astype("<i4").tobytes())

    def _identity(self):
        hashes = {"format_hash": FORMAT_HASH, "weights_hash": self.weights.heads_hash()}
        raw = {n: bytes.fromhex(h) for n, h in hashes.items()}
        return b"".join(raw.get(n, self.fields.get(n, 0).to_bytes(s, "little") if n not in raw else b"")
                        for n, s in IDENTITY_FIELDS)  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    return random_weights(4)


@pytest.fixture
def board(weights):
    with FakeBoard(weights) as made:
        yield made


@pytest.fixture
def scorer(board, weights):
    made = FpgaScorer(board.port, **PATIENCE)
    made.load(weights)
    yield made
    made.close()


@pytest.mark.parametrize("heads", [ALL_HEADS, 0b0001, 0b1000, 0b0110])
def test_heads_of_the_board_and_heads_of_the_host(weights, heads):
    codes = random_codes(100, 5)
    with FakeBoard(weights, heads) as board:
        scorer = FpgaScorer(board.port, **PATIENCE)
        scorer.load(weights)
        assert np.array_equal(scorer.score(codes), weights.compute(codes))
        assert sum(k == Type.SCORE for k, _, _ in board.questions) == -(-len(codes) // ROWS_MAX)
        scorer.close()


def test_more_questions_than_sequence_numbers(scorer, board, weights):
    codes = random_codes(300 * ROWS_MAX, 6)
    assert np.array_equal(scorer.score(codes), weights.compute(codes))
    assert len(board.questions) > 300


class Once:
    """Changes the answer to question number `at` alone."""

    def __init__(self, change, at):
        self.change, self.at, self.hits = change, at, 0

    def __call__(self, answer, k):
        self.hits += k == self.at
        return self.change(answer) if k == self.at else answer


def resealed(answer, **changes):
    """The answer with other header bytes, and a CRC that fits."""
    body = bytearray(answer[1:-CRC_BYTES])
    for name, value in changes.items():
        body[HEADER.index(name)] = value
    return bytes([SYNC]) + bytes(body) + zlib.crc32(bytes(body)).to_bytes(CRC_BYTES, "little")


DAMAGES = {
    "lost": lambda a: b"",
    "cut": lambda a: a[:-3],
    "flipped": lambda a: a[:9] + bytes([a[9] ^ 1]) + a[10:],
    "twice": lambda a: a + a,
    "old": lambda a: resealed(a, sequence=(a[2] + 100) % 256),
    "other type": lambda a: resealed(a, type=Type.IDENTITY),
    "short": lambda a: frame(a[1], a[2], a[4:-8]),
    "noise before": lambda a: b"noise" + a,
    "refused": lambda a: frame(Type.REFUSED, 0, bytes([Refusal.CRC])),
    "refused for a reason nobody knows": lambda a: frame(Type.REFUSED, 0, b"\x63"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_answer_is_asked_again(scorer, board, weights, damage):
    codes = random_codes(12 * ROWS_MAX, 7)
    known = len(board.questions)
    board.says = once = Once(DAMAGES[damage], known + 4)
    assert np.array_equal(scorer.score(codes), weights.compute(codes))
    assert once.hits == 1


@pytest.mark.parametrize(("damage", "told"), [
    ("lost", "no answer within"), ("flipped", "wrong CRC"), ("old", "was due"), ("noise before", "byte 6e where"),
    ("refused", "refused a frame: crc"), ("refused for a reason nobody knows", "refused a frame: 99"),
])  # fmt: skip
def test_what_is_always_wrong_ends_after_some_attempts(scorer, board, damage, told):
    board.says = lambda answer, k: DAMAGES[damage](answer)
    board.questions.clear()
    with pytest.raises(LinkFailed, match=f"asked {ATTEMPTS} times: .*{told}"):
        scorer.score(random_codes(1, 8))
    assert len(board.questions) == ATTEMPTS


@pytest.mark.parametrize(("noise", "told"), [(b"\0", "nothing but zeros"), (b"$GPGGA,1234\r\n", "where a frame")])
def test_a_device_that_talks_without_end_is_no_board(weights, noise, told):
    with FakeBoard(weights) as board:
        board.says = lambda answer, k: b""
        ended = threading.Event()

        def talk():
            while not ended.wait(0.002):
                board.send(noise)

        thread = threading.Thread(target=talk)
        thread.start()
        start = time.monotonic()
        try:
            reason = FpgaScorer(board.port, **PATIENCE).unavailable()
        finally:
            ended.set()
            thread.join()
        assert time.monotonic() - start < LIMIT_S
        assert reason is not None
        assert told in reason


def test_a_port_that_goes_away(scorer, board):
    assert scorer.score(random_codes(3, 1)).shape == (3, len(HEADS))
    board.unplug()
    with pytest.raises(LinkFailed, match=board.port):
        scorer.score(random_codes(3, 1))
    assert "cannot be opened" in scorer.unavailable()


def test_a_board_that_comes_back_is_the_same_or_refused(scorer, board, weights):
    codes = random_codes(3, 1)
    good = board.says
    board.says = lambda answer, k: b""
    with pytest.raises(LinkFailed):
        scorer.score(codes)
    board.says = good
    assert np.array_equal(scorer.score(codes), weights.compute(codes))
    scorer.close()
    board.weights = random_weights(5)
    with pytest.raises(LinkFailed, match="another one than at load"):
        scorer.score(codes)


def test_the_port_is_locked_while_it_is_open(scorer, board):
    other = FpgaScorer(board.port, **PATIENCE)
    assert "cannot be opened: " in other.unavailable()
    scorer.close()
    assert other.unavailable() is None
    other.close()


def test_a_refused_board_is_given_back(board, weights):
    refused = FpgaScorer(board.port, **PATIENCE)
    with pytest.raises(BackendUnavailable, match=f"--heads {','.join(HEADS)} --mask 0xffffffff"):
        refused.load(random_weights(5))
    with pytest.raises(RuntimeError, match="before load"):
        refused.score(random_codes(1, 1))
    other = FpgaScorer(board.port, **PATIENCE)
    assert other.unavailable() is None
    other.close()


@pytest.mark.parametrize(("fields", "told"), [
    ({"version": VERSION + 1}, f"speaks version {VERSION + 1} for {N_FEATURES} features, this driver .* {VERSION} "),
    ({"features": 16}, "for 16 features"), ({"rows": 0}, "0 rows a frame"), ({"rows": ROWS_MAX + 1}, "rows a frame"),
])  # fmt: skip
def test_a_board_of_another_make(weights, fields, told):
    with FakeBoard(weights, **fields) as board, pytest.raises(BackendUnavailable, match=told):
        FpgaScorer(board.port, **PATIENCE).load(weights)


def test_a_board_without_heads(weights):
    with FakeBoard(weights, 0) as board:
        assert "offers 0 heads" in FpgaScorer(board.port, **PATIENCE).unavailable()


def test_port_of_the_environment_and_missing_package(board, monkeypatch):
    monkeypatch.setenv(PORT, board.port)
    assert FpgaScorer().unavailable() is None
    monkeypatch.setitem(sys.modules, "serial", None)
    assert FpgaScorer().unavailable() == "pyserial is not installed: pip install 'microrisk[fpga]'"


def test_codes_of_another_shape(scorer):
    with pytest.raises(LinkFailed, match=r"codes must be int8\[n, 32\], not int16\[1, 32\]"):
        scorer.score(np.zeros((1, N_FEATURES), np.int16))
