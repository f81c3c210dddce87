"""Images of symbols: coalesced, one at a time each, rarer the more often they are wanted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from source_sink import run, until

from microrisk.monitor.sources.images import AT_ONCE, AgainError, Images


class Fetches:
    """Counts what is in flight; each fetch waits for `gate`."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_together = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.answers: list[Exception] = []

    async def __call__(self, name: str) -> None:
        self.began.append(name)
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        self.most_together = max(self.most_together, self.now.total())
        try:
            await self.gate.wait()
            if self.answers:
                raise self.answers.pop(0)
        finally:
            self.now[name] -= 1


def test_one_symbol_has_one_image_on_its_way() -> None:
    async def work() -> tuple[Fetches, Images]:
        fetches = Fetches()
        images = Images(fetches, seed=1)
        fetches.gate.clear()
        for _ in range(100):
            images.want("A")
            images.want("B")
            await asyncio.sleep(0)
        assert sorted(images.in_flight) == ["A", "B"]
        fetches.gate.set()
        await until(lambda: not images.in_flight)
        return fetches, images

    fetches, images = run(work())
    assert sorted(fetches.began) == ["A", "B"]
    assert fetches.most == Counter(A=1, B=1)
    assert images.counts["coalesced"] == 198


def test_not_too_many_at_once() -> None:
    async def work() -> Fetches:
        fetches = Fetches()
        images = Images(fetches, seed=1)
        for n in range(40):
            images.want(f"S{n}")
        await until(lambda: not images.in_flight)
        return fetches

    fetches = run(work())
    assert fetches.most_together <= AT_ONCE
    assert len(fetches.began) == 40


def test_the_first_is_fetched_at_once_and_further_ones_wait_longer_and_longer() -> None:
    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        fetches = Fetches()
        images = Images(fetches, seed=5)
        waits = []
        for _ in range(5):
            begun = loop.time()
            images.want("A")
            await until(lambda: not images.in_flight)
            waits.append(loop.time() - begun)
        return waits

    waits = run(work())
    assert waits[0] < 0.04
    # the pauses before tries 2 to 5 are drawn from [25, 50], [50, 100], [100, 200], [200, 400] ms
    for wait, least in zip(waits[1:], (0.02, 0.045, 0.095, 0.195), strict=True):
        assert least < wait


def test_calm_makes_the_next_one_a_first_one() -> None:
    async def work() -> list[float]:
        clock = [0.0]
        fetches = Fetches()
        images = Images(fetches, calm_s=5.0, seed=5, clock=lambda: clock[0])
        waits = []
        for passes in (0.0, 10.0, 10.0, 10.0):
            clock[0] += passes
            begun = asyncio.get_running_loop().time()
            images.want("A")
            await until(lambda: not images.in_flight)
            waits.append(asyncio.get_running_loop().time() - begun)
        return waits

    assert max(run(work())) < 0.04


def test_failures_are_tried_again_until_there_is_an_image() -> None:
    async def work() -> tuple[Fetches, Images]:
        fetches = Fetches()
        fetches.answers = [AgainError("not yet")] * 3
        images = Images(fetches, seed=1)
        images.want("A")
        await until(lambda: images.counts["fetched"])
        return fetches, images

    fetches, images = run(work())
    assert fetches.began == ["A"] * 4
    assert images.counts["again"] == 3
    assert images.why == {}


def test_too_many_requests_stop_every_symbol() -> None:
    async def work() -> tuple[list[str], float]:
        fetches = Fetches()
        fetches.answers = [AgainError("429", 0.3, everybody=True)]
        images = Images(fetches, seed=1)
        images.want("A")
        await until(lambda: images.counts["again"])
        begun = asyncio.get_running_loop().time()
        images.want("B")
        await until(lambda: images.counts["fetched"] == 2)
        return fetches.began, asyncio.get_running_loop().time() - begun

    began, took = run(work())
    assert sorted(began[1:]) == ["A", "B"]
    assert took >= 0.25


def test_stop_ends_what_is_on_its_way() -> None:
    async def work() -> Any:
        fetches = Fetches()
        fetches.gate.clear()
        images = Images(fetches, seed=1)
        images.want("A")
        await until(lambda: fetches.began)
        await images.stop()
        assert images.in_flight == []
        fetches.gate.set()
        images.want("A")
        await until(lambda: images.counts["fetched"])
        return fetches.began

    assert run(work()) == ["A", "A"]
