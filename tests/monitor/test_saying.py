"""A log that does not take its lines does not hold up the one who says them."""

from __future__ import annotations

import threading

from microrisk.monitor.saying import MOST, Saying


def test_lines_come_in_order() -> None:
    heard: list[str] = []
    saying = Saying(heard.append)
    for i in range(100):
        saying(str(i))
    saying.close()
    assert heard == [str(i) for i in range(100)]


def test_a_log_that_is_stuck_costs_lines_and_says_so() -> None:
    heard: list[str] = []
    free = threading.Event()

    def slow(line: str) -> None:
        free.wait(10)
        heard.append(line)

    saying = Saying(slow)
    for i in range(MOST + 50):
        saying(str(i))
    saying.close(wait_s=0.01)
    free.set()
    saying._thread.join(10)
    assert len(heard) in (MOST + 1, MOST + 2)
    assert heard[-1].endswith("the log did not take them in time")
    assert int(heard[-1].split()[0]) + len(heard) - 1 == MOST + 50
