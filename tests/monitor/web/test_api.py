"""Routes for scripts: what they give, and what they say to requests that cannot be meant."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import msgspec
import pytest

from microrisk.monitor.hub import Alert, Consolidated, Frame, InstrumentRow
from microrisk.monitor.web.api import csv_lines
from tests.monitor.web.conftest import VIEWER, Running
from tests.monitor.web.fake_hub import FEED_STATES, FEEDS, FakeHub

CHANGE = {"x-microrisk": "1"}


def test_overview(running: Running) -> None:
    got = running.get("/api/overview").json()
    assert [f["state"] for f in got["feeds"]] == FEED_STATES
    assert got["alerts"] == len(running.hub.told)


def test_lists_are_those_of_the_hub(running: Running) -> None:
    hub = running.hub
    assert msgspec.json.decode(running.get("/api/instruments").content, type=list[InstrumentRow]) == hub.instruments()
    assert msgspec.json.decode(running.get("/api/consolidated").content, type=list[Consolidated]) == hub.consolidated()
    assert [i["id"] for i in running.get("/api/instruments?search=btc/").json()] == ["BTC/USD.KRAKEN"]
    stages = running.get("/api/latency").json()["stages"]
    assert [s["name"] for s in stages] == [s.name for s in hub.latency()["stages"]]


def test_alerts_page_by_page(running: Running) -> None:
    told = running.hub.told
    assert len(told) > 5
    got: list[Alert] = []
    while page := running.get(f"/api/alerts?after={got[-1].n if got else 0}&limit=2").json()["alerts"]:
        got += msgspec.convert(page, list[Alert])
        assert len(page) <= 2
    assert got == told


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=1001", "after=9" + "9" * 30, "after=%E0%A5%A7"])
def test_numbers_that_are_none(running: Running, query: str) -> None:
    response = running.get(f"/api/alerts?{query}")
    assert response.status_code == 400
    assert "a whole number from 0 to" in response.text


def test_around_an_alert(running: Running) -> None:
    alert = running.hub.told[-1]
    frames = msgspec.json.decode(running.get(f"/api/alerts/{alert.id}/around").content, type=list[Frame])
    assert frames == running.hub.around(alert.id)
    assert running.get("/api/alerts/unknown/around").status_code == 404


def test_labels_are_kept_taken_back_and_exported(serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=20))
    first, second = running.hub.told[:2]
    for alert, value in ((first, True), (second, False), (second, None), (second, False)):
        response = running.ask("POST", f"/api/alerts/{alert.id}/label", headers=CHANGE, json={"value": value})
        assert response.json() == {"id": alert.id, "label": value}
    assert running.get("/api/alerts").json()["labels"] == {first.id: True, second.id: False}
    lines = [json.loads(line) for line in running.get("/api/alerts.jsonl").text.splitlines()]
    assert [line["id"] for line in lines] == [a.id for a in running.hub.told]
    assert [line["label"] for line in lines[:3]] == [True, False, None]
    rows = list(csv.DictReader(io.StringIO(running.get("/api/alerts.csv", VIEWER).text)))
    assert [row["id"] for row in rows] == [a.id for a in running.hub.told]
    assert [row["label"] for row in rows[:3]] == ["True", "False", ""]
    assert int(rows[0]["ts_ns"]) == first.ts_ns


@pytest.mark.parametrize("body", [b"", b"{}", b'{"value": 1}', b'{"value": true, "by": 1}', b'{"value": "\xff"}'])
def test_labels_that_are_none(running: Running, body: bytes) -> None:
    response = running.ask("POST", f"/api/alerts/{running.hub.told[0].id}/label", headers=CHANGE, content=body)
    assert response.status_code == 400
    assert running.hub.labels() == {}


def test_label_of_an_unknown_alert(running: Running) -> None:
    assert running.ask("POST", "/api/alerts/x/label", headers=CHANGE, json={"value": True}).status_code == 404
    assert running.get("/api/alerts/x/label").status_code == 405


def test_text_that_a_spreadsheet_would_compute_is_marked() -> None:
    alert = msgspec.structs.replace(FakeHub(history_s=20).told[0], instrument='=HYPERLINK("http://x")', bid="-1")
    (row,) = csv.DictReader(io.StringIO(b"".join(csv_lines([alert], {})).decode()))
    assert row["instrument"] == '\'=HYPERLINK("http://x")'
    assert row["bid"] == "'-1"


def test_readiness_names_every_feed(serve: Callable[..., Running]) -> None:
    running = serve()
    response = running.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "feeds": {f[0]: f[3] for f in FEEDS}}
    running.hub.all_live = True
    assert running.get("/readyz").json()["ready"] is True
    assert running.get("/readyz").status_code == 200


def test_metrics_are_an_exposition(running: Running) -> None:
    response = running.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert response.content == running.hub.metrics()


def test_nothing_at_other_addresses_or_methods(running: Running) -> None:
    assert running.get("/api").status_code == 404
    assert running.ask("POST", "/api/overview", headers=CHANGE, content=b"").status_code == 405
    assert running.ask("PUT", "/", content=b"").status_code == 403
    assert running.ask("OPTIONS", "/api/overview").status_code == 405
