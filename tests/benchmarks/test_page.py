"""The page of figures says what the records say, and the committed page is made from the committed records."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import live_page
from benchmarks.page import OUT, page
from benchmarks.readme import README, filled, speed

MACHINE = {
    "date": "2026-01-02",
    "commit": "abc1234",
    "processor": "P",
    "cores": 2,
    "caches": {"L1": "32K"},
    "load_before": 0.1,
}


def spread(median: float) -> dict[str, float]:
    return {"median": median, "low": median / 2, "high": median * 2, "n": 3}


def engine(cost: float, ratio: float) -> dict[str, object]:
    found = {"cpu_ns": spread(cost), "wall_ns": spread(cost), "ratio": spread(ratio)}
    return found | {"memory_mb": 12.3, "compared": ["live_orders"], "system_share": 0.1}


def test_a_record_becomes_a_table(tmp_path: Path) -> None:
    truth = {"messages": 4_000_000, "life_median_s": 15.4, "peak_live": 950_000}
    engines = {"microrisk": engine(80, 1), "itchcpp": engine(520, 6.5), "itch-book": engine(240, 3)}
    streams = [{"stream": "published, dense", "truth": truth, "engines": engines}]
    record = {
        "command": "python -m X",
        "machine": MACHINE,
        "rounds": 3,
        "rivals": {"itchcpp": "1.6.4"},
        "streams": streams,
    }
    (tmp_path / "books.json").write_text(json.dumps(record))
    text = page(tmp_path)
    assert "| published, dense | 15.4 s | 0.95 M | 80 [40-160] | 240 [120-480] | 520 [260-1,040] |" in text
    assert "6.5x [3.25-13]" in text
    assert "`python -m X`, 2026-01-02, commit abc1234; P, 2 cores (L1 32K), load before 0.1; n = 3 rounds" in text
    assert "rivals itchcpp 1.6.4" in text
    assert "## Memory" not in text
    row = (
        "| books, published, dense | 80 ns a message | itchcpp 520 ns (6.5x [3.25-13]), itch-book 240 ns (3x [1.5-6]) |"
    )
    assert row in speed(tmp_path)


def test_the_committed_page_is_that_of_the_records() -> None:
    assert OUT.read_text() == page(), "run python -m benchmarks.page"
    assert README.read_text() == filled(README.read_text()), "run python -m benchmarks.page"
    live = live_page.PAGE.read_text()
    assert live == live_page.filled(live), "run python -m benchmarks.page"
