"""Stages of latency against HdrHistogram itself, fed with the same values."""

import json

import msgspec
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from microrisk.monitor.latency import EDGES, bucket_of, buckets, stage_of


def counted(values):
    counts = np.zeros(len(EDGES), np.uint64)
    for value in values:
        counts[bucket_of(value)] += np.uint64(1)
    return counts


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=200))
def test_percentiles_are_those_of_hdrhistogram(values):
    peer = HdrHistogram(1, 10**11, 2)
    for value in values:
        peer.record_value(value)
    stage = stage_of("x", counted(values))
    assert stage.count == len(values)
    for share, ours in ((50.0, stage.p50), (99.0, stage.p99), (99.9, stage.p999), (100.0, stage.max)):
        assert ours == pytest.approx(peer.get_value_at_percentile(share), rel=0.02, abs=2)
    assert stage.max >= max(values)
    assert stage.p50 <= stage.p99 <= stage.p999 <= stage.max


@given(st.lists(st.integers(0, 10**10), max_size=50), st.lists(st.integers(0, 10**10), max_size=50))
def test_histograms_are_merged_by_adding(a, b):
    assert stage_of("x", counted(a) + counted(b)) == stage_of("x", counted(a + b))
    assert sum(n for _, n in buckets(counted(a) + counted(b))) == len(a) + len(b)


def test_nothing_measured_is_zero_and_below_zero_counts_as_zero():
    stage = stage_of("x", counted([]))
    assert (stage.count, stage.p50, stage.p999, stage.max) == (0, 0, 0, 0)
    assert bucket_of(-5) == bucket_of(0)
    assert buckets(counted([])) == []


def test_as_json():
    told = json.loads(
        msgspec.json.encode({"stage": stage_of("a to b", counted([1000])), "histogram": buckets(counted([1000]))})
    )
    assert told["stage"]["name"] == "a to b"
    ((upper, count),) = told["histogram"]
    assert (count, told["stage"]["max"]) == (1, upper)
    assert 1000 <= upper <= 1010
