"""Same seed, same faults; each kind does what it says, and the log tells it."""

from __future__ import annotations

import json

import pytest

from microrisk.errors import UsageError
from microrisk.monitor.publish import DatagramPlan, LineFaults, StreamPlan

MANY = LineFaults(loss=0.05, burst=3, reorder=8, duplicate=0.05, truncate=0.05, garbage=0.05)


def played(plan: DatagramPlan, packets: int = 500, lines: str = "AB") -> dict[str, list[bytes]]:
    out: dict[str, list[bytes]] = {line: [] for line in lines}
    for i in range(packets):
        for line in lines:
            out[line] += plan.apply(line, i, 1 + 2 * i, 2, b"packet %4d, some bytes" % i, last=i % 10 == 9)
    for line in lines:
        out[line] += plan.flush(line)
    return out


def plan_of(faults: LineFaults, seed: int = 5, **options: float) -> DatagramPlan:
    return DatagramPlan(seed, {"A": faults, "B": faults}, **options)


def test_the_same_seed_gives_the_same_packets_and_log() -> None:
    first, second, other = plan_of(MANY), plan_of(MANY), plan_of(MANY, seed=6)
    assert played(first) == played(second)
    assert first.log.json_lines() == second.log.json_lines()
    assert played(other) != played(plan_of(MANY))


def test_the_lines_fail_independently() -> None:
    plan = plan_of(LineFaults(loss=0.2))
    out = played(plan)
    assert plan.log.lost("A") != plan.log.lost("B")
    assert 60 < 500 - len(out["A"]) < 140


def test_a_line_without_faults_is_untouched() -> None:
    plan = DatagramPlan(1, {"A": LineFaults(loss=1.0)})
    out = played(plan)
    assert out["A"] == []
    assert out["B"] == [b"packet %4d, some bytes" % i for i in range(500)]


def test_loss_on_both_lines_is_the_same_packets() -> None:
    plan = DatagramPlan(3, both=0.1)
    out = played(plan)
    assert out["A"] == out["B"]
    assert plan.log.lost("A") == plan.log.lost("B") != set()


@pytest.mark.parametrize("burst", [1, 4])
def test_losses_come_in_bursts(burst: int) -> None:
    plan = DatagramPlan(2, {"A": LineFaults(loss=0.01, burst=burst)})
    played(plan, 5000, "A")
    numbers = [f.seq for f in plan.log.entries("loss")]
    runs = sum(b - a != 2 for a, b in zip([-9, *numbers], numbers, strict=False))
    assert runs > 20
    assert burst * 0.85 < len(numbers) / runs < burst * 1.15


@pytest.mark.parametrize("depth", [2, 7, 64])
def test_reordering_stays_within_its_depth(depth: int) -> None:
    plan = DatagramPlan(4, {"A": LineFaults(reorder=depth)})
    out = [int(p[7:11]) for p in played(plan, 500, "A")["A"]]
    assert sorted(out) == list(range(500))
    assert out != sorted(out)
    assert max(abs(place - was) for place, was in enumerate(out)) < depth


def test_duplicates_truncation_and_garbage() -> None:
    plan = DatagramPlan(4, {"A": LineFaults(duplicate=0.5)})
    out = played(plan, 100, "A")["A"]
    assert len(out) == 100 + plan.log.counts["duplicate"] > 120
    cut = played(DatagramPlan(4, {"A": LineFaults(truncate=1.0)}), 50, "A")["A"]
    assert all((b"packet %4d, some bytes" % i).startswith(p) and len(p) < 23 for i, p in enumerate(cut))
    garbage = played(DatagramPlan(4, {"A": LineFaults(garbage=1.0)}), 50, "A")["A"]
    assert {len(p) for p in garbage} == {23}
    assert not any(p.startswith(b"packet") for p in garbage)


def test_the_last_packet_of_a_burst() -> None:
    plan = DatagramPlan(4, {"A": LineFaults(last=1.0)})
    out = [int(p[7:11]) for p in played(plan, 40, "A")["A"]]
    assert out == [i for i in range(40) if i % 10 != 9]


def test_by_hand() -> None:
    plan = DatagramPlan()
    plan.drop_next("A", 2)
    plan.drop_messages("AB", [12, 13])
    out = played(plan, 10)
    assert [int(p[7:11]) for p in out["A"]] == [2, 3, 4, 7, 8, 9]
    assert [int(p[7:11]) for p in out["B"]] == [0, 1, 2, 3, 4, 7, 8, 9]
    lines = [json.loads(line) for line in plan.log.json_lines().splitlines()]
    assert [x["n"] for x in lines] == list(range(1, 7))
    assert lines[0] == {"n": 1, "where": "A", "what": "loss", "seq": 1, "count": 2, "detail": ""}


def test_what_cannot_be_meant_is_refused() -> None:
    for faults in (LineFaults(loss=1.5), LineFaults(reorder=65), LineFaults(burst=0)):
        with pytest.raises(UsageError):
            DatagramPlan(1, {"A": faults})


def test_stream_faults_by_number_and_by_hand() -> None:
    plan = StreamPlan(drop=[2], corrupt=[3], disconnect=[4], half_open=6, refuse=2)
    assert [plan.verdict(i) for i in range(1, 8)] == ["send", "drop", "corrupt", "send", "send", "send", "silent"]
    assert [plan.cuts_behind(i) for i in (3, 4, 5)] == [False, True, False]
    plan.resume()
    plan.drop_next(1, "ETH-USD")
    assert [plan.verdict(9, "BTC-USD"), plan.verdict(10, "ETH-USD"), plan.verdict(11, "ETH-USD")] == [
        "send",
        "drop",
        "send",
    ]
    assert [plan.refused("/book") for _ in range(3)] == [True, True, False]
    assert plan.log.counts == {"drop": 2, "corrupt": 1, "half_open": 1, "disconnect": 1, "refuse": 2}
