"""Parse only: every message decoded to a record. Rival: itchcpp, which makes one Python object a message."""

from __future__ import annotations

import itchcpp
import numpy as np
import pytest

from benchmarks.workloads import Workload
from microrisk.core import ItchDecoder
from microrisk.feed.reference import ReferenceDecoder
from microrisk.spec.records import EVENT

pytestmark = pytest.mark.benchmark(group="parse")


def _decode(data: bytes) -> int:
    decoder, out, offset = ItchDecoder(), np.empty(16_384, EVENT), 0
    while True:
        n, after = decoder.decode(data, offset, out)
        if n == 0 and after == offset:
            return decoder.messages
        offset = after


def test_microrisk(benchmark, stream: Workload) -> None:
    benchmark.extra_info["messages"] = stream.messages
    assert benchmark.pedantic(_decode, (stream.data,), rounds=7, warmup_rounds=1) == stream.messages


def test_itchcpp(benchmark, stream: Workload) -> None:
    assert "itchcpp" in itchcpp.MessageParser.__module__
    benchmark.extra_info["messages"] = stream.messages
    count = benchmark.pedantic(lambda: sum(1 for _ in itchcpp.MessageParser().parse_stream(stream.data)), rounds=3)
    assert count == stream.messages


def test_naive_twin_first_20000(benchmark, stream: Workload) -> None:
    part = stream.data[:600_000]
    events = benchmark.pedantic(lambda: len(ReferenceDecoder().decode(part)[0]), rounds=3)
    assert events > 10_000
