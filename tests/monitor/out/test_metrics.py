"""The exposition, and that dashboard and alert rules ask only for what it has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from microrisk.monitor.hub import LIVE, STALE, FeedRow, InstrumentRow, Stage
from microrisk.monitor.out import metrics
from microrisk.monitor.out.metrics import BOUNDS_NS, MOST_WATCHED, Metrics

GRAFANA = Path(metrics.__file__).parent / "grafana"
NOTHING = Stage("", 0, 0, 0, 0, 0)


def feed(name: str, state: str) -> FeedRow:
    return FeedRow(0, name, "kraken", "KRAKEN", state, "", 1.0, 10, 1, 2, 3, 4, 5, 6, 7, 1500, 8, 0.5, [], NOTHING)


class FakeHub:
    """What the collector reads."""

    def __init__(self) -> None:
        self.feeds = [feed("a", LIVE), feed('odd "name"\\\n', STALE)]
        self.histogram: dict[str, list[list[int]]] = {
            "receive_scored": [[900, 5], [1000, 1], [1500, 3], [2 * 10**10, 1]]
        }
        self.rows = [
            InstrumentRow(f"I{i}.KRAKEN", 0, LIVE, "1", "1", "2", "1", 7, True, 0.25, True) for i in range(100)
        ]

    def overview(self) -> dict[str, Any]:
        return {
            "feeds": self.feeds, "uptime_s": 2.5, "messages": 20, "events": 9, "instruments": 3, "scored": 2,
            "alerts": 1, "model": "default", "backend": "cpu", "journal": {"bytes": 77, "trouble": "disk full"},
            "inbox": {"waiting": 4, "most": 5, "refused": 6}, "poller": {"kernel_drops": 8, "clock_steps": 1},
        }  # fmt: skip

    def latency(self) -> dict[str, Any]:
        return {"histogram": self.histogram}

    def instruments(self) -> list[InstrumentRow]:
        return self.rows


OUTPUTS = {"webhook": {"delivered": 3, "dropped": 1, "trouble": "timed out"}, "alerts": {"written": 2, "trouble": ""}}


def read(hub: Any = None, **options: Any) -> tuple[dict[str, str], dict[tuple[str, frozenset[tuple[str, str]]], float]]:
    """Type by family and value by name and labels, through the client's own parser."""
    data = Metrics(hub or FakeHub(), **({"outputs": lambda: OUTPUTS, "watch": ["I1.KRAKEN"]} | options)).exposition()
    families = list(text_string_to_metric_families(data.decode()))
    samples = {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}
    return {f.name: f.type for f in families}, samples


def value(samples: Any, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_samples():
    _, samples = read(build={"version": "0.1.0"})
    assert value(samples, "microrisk_build_info", version="0.1.0", model="default", backend="cpu") == 1
    assert value(samples, "microrisk_uptime_seconds") == 2.5
    assert value(samples, "microrisk_messages_total") == 20
    assert value(samples, "microrisk_journal_bytes_total") == 77
    assert value(samples, "microrisk_journal_trouble") == 1
    assert value(samples, "microrisk_kernel_drops_total") == 8
    assert value(samples, "microrisk_inbox_refused_total") == 6
    assert value(samples, "microrisk_feed_state", feed="a", state="live") == 1
    assert value(samples, "microrisk_feed_state", feed="a", state="stale") == 0
    assert value(samples, "microrisk_feed_state", feed='odd "name"\\\n', state="stale") == 1
    totals = ("messages", "gaps", "missing", "recovered", "duplicates", "malformed", "resyncs")
    found = [value(samples, f"microrisk_feed_{n}_total", feed="a") for n in totals]
    assert found == [10, 1, 2, 3, 4, 5, 6]
    assert value(samples, "microrisk_feed_held_messages", feed="a") == 7
    assert value(samples, "microrisk_feed_silence_seconds", feed="a") == 1.5
    assert value(samples, "microrisk_feed_weight_ratio", feed="a") == 0.5
    assert value(samples, "microrisk_output_items_total", output="webhook", what="dropped") == 1
    assert value(samples, "microrisk_output_trouble", output="webhook") == 1
    assert value(samples, "microrisk_output_trouble", output="alerts") == 0


def test_latency_is_a_cumulative_histogram_in_seconds():
    _, samples = read()
    stage = {"stage": "receive to scored"}
    at = {
        le: value(samples, "microrisk_latency_seconds_bucket", le=le, **stage)
        for le in ("1e-06", "2e-06", "10.0", "+Inf")
    }
    assert at == {"1e-06": 6, "2e-06": 9, "10.0": 9, "+Inf": 10}
    assert value(samples, "microrisk_latency_seconds_count", **stage) == 10
    assert value(samples, "microrisk_latency_seconds_sum", **stage) == pytest.approx(20 + 1e-9 * (4500 + 1000 + 4500))
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))


def test_names_and_labels_keep_to_the_conventions():
    types, samples = read()
    for name, labels in samples:
        assert re.fullmatch(r"microrisk_[a-z0-9_]+", name)
        assert {k for k, _ in labels} <= {
            "feed",
            "state",
            "stage",
            "le",
            "output",
            "what",
            "instrument",
            "model",
            "backend",
        }
        assert not re.search(r"_(ms|us|ns|percent|mb)(_|$)", name)
    counters = {name for name, kind in types.items() if kind == "counter"}
    assert len(counters) > 10
    totals = {name.removesuffix("_total") for name, _ in samples if name.endswith("_total")}
    assert totals == counters


def test_instruments_only_of_a_bounded_list():
    _, samples = read(watch=[])
    assert not [1 for name, _ in samples if "microrisk_instrument_" in name]
    _, samples = read(watch=[f"I{i}.KRAKEN" for i in range(100)])
    assert sum(name == "microrisk_instrument_events_total" for name, _ in samples) == MOST_WATCHED


@pytest.mark.parametrize("level", [None, float("nan"), float("inf")])
def test_what_is_no_number_never_leaves(level):
    hub = FakeHub()
    hub.rows = [InstrumentRow("I1.KRAKEN", 0, LIVE, "", "", "", "", 1, False, level, False)]
    _, samples = read(hub)
    assert "microrisk_instrument_tail_probability_ratio" not in {name for name, _ in samples}


def test_a_hub_that_knows_nothing_yet():
    class Empty(FakeHub):
        def overview(self):
            return {"feeds": []}

        def latency(self):
            return {}

    types, _ = read(Empty())
    assert types["microrisk_uptime_seconds"] == "gauge"


def test_two_monitors_in_one_process_do_not_share_a_registry():
    first, second = Metrics(FakeHub()), Metrics(FakeHub())
    assert first.exposition() == second.exposition()
    assert b"python_info" not in first.exposition()


# -- dashboard and rules --------------------------------------------------------------------------------------


def asked(text: str) -> set[str]:
    """Metric names in PromQL: labels' values are taken out first."""
    return set(re.findall(r"\bmicrorisk_[a-z0-9_]+", re.sub(r'"[^"]*"', '""', text)))


def known() -> set[str]:
    """Names of the exposition, and the labels that its samples have."""
    return {name for name, _ in read()[1]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "microrisk.json").read_text())
    return found


def rules() -> list[dict[str, str]]:
    """Rules of the file: its lines are `key: value` below `- alert:`."""
    out: list[dict[str, str]] = []
    for line in (GRAFANA / "alerts.rules.yml").read_text().splitlines():
        found = re.fullmatch(r"\s+(- )?(alert|expr|for|severity|summary): (.+)", line)
        if found:
            if found[2] == "alert":
                out.append({})
            out[-1][found[2]] = found[3]
    return out


def balanced(text: str) -> bool:
    plain = re.sub(r'"[^"]*"', "", text)
    return all(plain.count(a) == plain.count(b) for a, b in ("()", "{}", "[]")) and text.count('"') % 2 == 0


def test_the_dashboard_is_one_that_grafana_loads():
    board = dashboard()
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", board["uid"])
    assert board["title"]
    assert board["schemaVersion"] >= 36
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    panels = board["panels"]
    assert len({p["id"] for p in panels}) == len(panels) >= 12
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert asked(target["expr"])
            assert balanced(target["expr"])
            assert set(re.findall(r"\$([a-z]+)", target["expr"])) <= {*variables}


def test_panels_do_not_overlap():
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        g = panel["gridPos"]
        mine = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24
        assert not mine & cells
        cells |= mine


def test_the_dashboard_asks_only_for_what_there_is():
    text = json.dumps(dashboard())
    names = {n for p in dashboard()["panels"] for t in p["targets"] for n in asked(t["expr"])}
    names |= set(re.findall(r"label_values\((microrisk_[a-z_]+)", text))
    assert len(names) > 15
    assert names <= known()


def test_the_rules_ask_only_for_what_there_is_and_are_complete():
    found = rules()
    assert len(found) >= 8
    assert len({r["alert"] for r in found}) == len(found)
    for rule in found:
        assert {"alert", "expr", "severity", "summary"} <= set(rule)
        assert rule["severity"] in ("warning", "critical")
        assert asked(rule["expr"]) <= known()
        assert balanced(rule["expr"])
        assert asked(rule["expr"]) or rule["alert"] == "MicroriskAbsent"
    text = (GRAFANA / "alerts.rules.yml").read_text()
    assert text.count("expr:") == len(found)
    assert "\t" not in text


def test_states_in_queries_are_states():
    text = json.dumps(dashboard()).replace('\\"', '"') + (GRAFANA / "alerts.rules.yml").read_text()
    found = {s for group in re.findall(r'state[!=]~?"([a-z|]+)"', text) for s in group.split("|")}
    assert found
    assert found <= set(metrics.STATES)
