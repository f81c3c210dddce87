"""Fetching from servers that misbehave: every file arrives whole and proved, or not at all."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Site, serving

from microrisk.errors import ChecksumError, FetchError, OutputError, UsageError
from microrisk.feed.base import session_day
from microrisk.pipeline.fetching import Choice, Limits, download, fetch, listed, run, web
from microrisk.pipeline.fetching.proof import damage, from_headers, parse_sums
from microrisk.pipeline.fetching.wanted import find_wanted, safe_name
from microrisk.spec.samples import SAMPLES

DAY = "2019-12-30"
NAME = "12302019.NASDAQ_ITCH50.gz"
PATH = f"/ITCH/Nasdaq ITCH/{NAME}"
SUM = "/ITCH/Nasdaq ITCH/12302019.NASDAQ_ITCH50.md5sum"
BODY = gzip.compress(bytes(range(256)) * 800 + os.urandom(300_000), mtime=0)


def sums(body: bytes, name: str = NAME) -> bytes:
    return f"{hashlib.md5(body).hexdigest()}  {name}\n".encode()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({PATH: BODY, SUM: sums(BODY)})) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Waits(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def get(site: Site, out: Path, sample: str = "nasdaq", *words: str, choice: Choice | None = None, **limits: Any) -> Any:
    given = {"timeout": 5.0, "retries": 3, "sleep": Waits(), **limits}
    return fetch(sample, words or (DAY,), out, choice=choice, base_url=site.url, limits=Limits(**given))


def only(folder: Path, *names: str) -> bool:
    return sorted(p.name for p in folder.iterdir()) == sorted(names)


# ---- the plain way -------------------------------------------------------------------------------------------------


def test_a_file_arrives_proved_under_its_name(site: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    got = fetch("nasdaq", [DAY], tmp_path / "new", base_url=site.url, tell=lambda *t: told.append(t))
    assert Path(got.file).read_bytes() == BODY
    assert only(tmp_path / "new", NAME)
    assert got.proved_by == f"md5 of {site.url}/ITCH/Nasdaq%20ITCH/12302019.NASDAQ_ITCH50.md5sum"
    assert (got.bytes, got.sha256, got.already) == (len(BODY), hashlib.sha256(BODY).hexdigest(), False)
    assert told[-1] == (len(BODY), len(BODY))
    assert got.next[0] == f"microrisk replay {got.file} --bbo bbo.parquet"
    assert session_day(NAME, None).isoformat() == DAY  # type: ignore[union-attr]


def test_a_file_that_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path)
    before = len(site.asked(PATH))
    got = get(site, tmp_path)
    assert got.already
    assert len(site.asked(PATH)) == before
    (tmp_path / NAME).write_bytes(BODY[:-1])
    with pytest.raises(ChecksumError, match="is there, but its md5 is"):
        get(site, tmp_path)
    assert (tmp_path / NAME).read_bytes() == BODY[:-1]
    del site.files[SUM]
    with pytest.raises(ChecksumError, match="is there, but damaged"):
        get(site, tmp_path)


def test_the_second_series_of_names(tmp_path: Path) -> None:
    with serving(Site({"/ITCH/Nasdaq ITCH/S123019-v50.txt.gz": BODY})) as site:
        got = get(site, tmp_path)
    assert Path(got.file).name == "S123019-v50.txt.gz"
    assert session_day("S123019-v50.txt", None).isoformat() == DAY  # type: ignore[union-attr]
    assert got.proved_by == run.OWN


def test_a_day_that_is_not_there_names_days_that_were(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"404.*2019-12-30, 2020-01-30"):
        get(site, tmp_path, "nasdaq", "2019-12-29")
    assert only(tmp_path)


def test_a_web_page_instead_of_the_file(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><title>gone</title>"
    with serving(Site({PATH: page, SUM: page})) as site, pytest.raises(FetchError, match=r"begins with b'<!DOCTYPE"):
        get(site, tmp_path)
    assert only(tmp_path)


# ---- breaks --------------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000]
    waits = Waits()
    got = get(site, tmp_path, sleep=waits)
    assert Path(got.file).read_bytes() == BODY
    assert site.asked(PATH) == [(None, 200), ("bytes=100000-", 206), ("bytes=150000-", 206)]
    assert (got.retries, waits) == (2, [0.5, 1.0])


def test_the_next_run_goes_on(site: Site, tmp_path: Path) -> None:
    site.cuts = [70_000] + [0] * 4
    with pytest.raises(FetchError, match=r"70,000 bytes are kept"):
        get(site, tmp_path)
    assert only(tmp_path, f"{NAME}.part", f"{NAME}.part.json")
    site.cuts = []
    got = get(site, tmp_path)
    assert (got.resumed_from, got.proved_by[:3]) == (70_000, "md5")
    assert only(tmp_path, NAME)


def test_without_ranges_it_begins_anew(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [100_000]
    got = get(site, tmp_path)
    assert Path(got.file).read_bytes() == BODY
    assert site.asked(PATH) == [(None, 200), ("bytes=100000-", 200)]
    assert "no ranges" in got.notices[0]


def test_a_changed_file_begins_anew(site: Site, tmp_path: Path) -> None:
    other = gzip.compress(b"another edition" * 9000, mtime=0)
    site.cuts = [100_000]

    def change(path: str) -> None:
        if len(site.log) == 1:
            site.files |= {PATH: other, SUM: sums(other)}

    site.on_request = change
    got = get(site, tmp_path)
    assert Path(got.file).read_bytes() == other


def test_a_changed_file_whose_server_ignores_if_range(site: Site, tmp_path: Path) -> None:
    """The answer is a 206 of the new file: its ETag differs from that of the part."""
    site.cuts = [100_000]
    site.etags[PATH] = '"first"'

    def change(path: str) -> None:
        if len(site.log) == 1:
            site.etags[PATH] = '"second"'

    site.on_request = change
    real = web.Client.get

    def without_if_range(self: Any, url: str, headers: Any = None) -> Any:
        return real(self, url, {k: v for k, v in (headers or {}).items() if k != "If-Range"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web.Client, "get", without_if_range)
        got = get(site, tmp_path)
    assert Path(got.file).read_bytes() == BODY
    assert [status for _, status in site.asked(PATH)] == [200, 206, 200]


def test_a_range_of_another_place_is_not_appended(site: Site, tmp_path: Path) -> None:
    site.cuts, site.range_shift = [100_000], 7
    got = get(site, tmp_path)
    assert Path(got.file).read_bytes() == BODY
    assert [status for _, status in site.asked(PATH)] == [200, 206, 200]


def test_a_part_that_is_whole_already(site: Site, tmp_path: Path) -> None:
    note = {"url": f"{site.url}/ITCH/Nasdaq%20ITCH/{NAME}", "validator": site.etag(PATH), "size": len(BODY)}
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(note))
    assert get(site, tmp_path).bytes == len(BODY)
    assert site.asked(PATH) == [(f"bytes={len(BODY)}-", 416)]


@pytest.mark.parametrize("note", ["", "{}", "[1", '{"url": "https://elsewhere", "validator": null, "size": 4}'])
def test_a_part_without_a_good_note_is_not_trusted(site: Site, tmp_path: Path, note: str) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"rubbish")
    (tmp_path / f"{NAME}.part.json").write_text(note)
    assert Path(get(site, tmp_path).file).read_bytes() == BODY
    assert site.asked(PATH) == [(None, 200)]


def test_a_part_longer_than_the_file(site: Site, tmp_path: Path) -> None:
    note = {"url": f"{site.url}/ITCH/Nasdaq%20ITCH/{NAME}", "validator": None, "size": None}
    (tmp_path / f"{NAME}.part").write_bytes(BODY + b"more")
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(note))
    assert Path(get(site, tmp_path).file).read_bytes() == BODY
    assert [status for _, status in site.asked(PATH)] == [416, 200]


def test_busy_servers_are_waited_for(site: Site, tmp_path: Path) -> None:
    site.refusals = [(503, "7"), (429, None), (500, "2")]
    waits = Waits()
    assert get(site, tmp_path, sleep=waits).bytes == len(BODY)
    assert waits == [7.0, 1.0, 2.0]


def test_a_server_that_stays_busy(site: Site, tmp_path: Path) -> None:
    site.refusals = [(503, None)] * 9
    with pytest.raises(FetchError, match=r"HTTP 503.*4 failures in a row"):
        get(site, tmp_path)
    site.refusals = [(429, "86400")]
    with pytest.raises(FetchError, match="asks to wait 86,400 s"):
        get(site, tmp_path)
    site.refusals = [(403, None)]
    with pytest.raises(FetchError, match="HTTP 403"):
        get(site, tmp_path)
    assert only(tmp_path)


def test_a_silent_server(site: Site, tmp_path: Path) -> None:
    site.stall = 2.0

    def once(path: str) -> None:
        site.stall = 2.0 if not site.asked(PATH) else 0.0

    site.on_request = once
    got = get(site, tmp_path, timeout=0.2)
    assert Path(got.file).read_bytes() == BODY
    assert got.retries == 1


def test_a_trickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    pace = download._Pace(100, lambda: now[0])
    for now[0] in (20.0, 40.0, 61.0):
        pace.add(3000, "u")
    now[0] = 121.5
    with pytest.raises(web.PassingError, match="only 10 bytes in 60 s"):
        pace.add(10, "u")


def test_nobody_listens(tmp_path: Path) -> None:
    with serving(Site()) as site:
        pass
    with pytest.raises(FetchError, match="4 failures in a row"):
        get(site, tmp_path)


@pytest.mark.parametrize("shift", [50, 5_000_000])
def test_more_promised_than_sent(site: Site, tmp_path: Path, shift: int) -> None:
    """The server says itself, asked for the rest, that there is none; the file's own sums then decide."""
    site.length_shift = shift
    got = get(site, tmp_path)
    assert Path(got.file).read_bytes() == BODY
    assert [status for _, status in site.asked(PATH)] == [200, 416]
    site.ranges = False
    with pytest.raises(FetchError, match=f"ended at byte {len(BODY):,} of {len(BODY) + shift:,}"):
        get(site, tmp_path / "no ranges")


def test_less_promised_than_sent(site: Site, tmp_path: Path) -> None:
    site.length_shift = -1000
    with pytest.raises(ChecksumError, match=r"kept as .*\.bad"):
        get(site, tmp_path)
    assert (tmp_path / f"{NAME}.bad").stat().st_size == len(BODY) - 1000
    assert only(tmp_path, f"{NAME}.bad")


def test_a_body_without_a_length_is_proved_by_its_sum(site: Site, tmp_path: Path) -> None:
    site.no_length = True
    assert get(site, tmp_path).bytes == len(BODY)


# ---- proofs --------------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_kept_as_bad(site: Site, tmp_path: Path) -> None:
    site.files[SUM] = sums(b"something else")
    with pytest.raises(ChecksumError, match=f"md5 is {hashlib.md5(BODY).hexdigest()}, .* says"):
        get(site, tmp_path)
    assert only(tmp_path, f"{NAME}.bad")


def test_damage_before_a_resume_is_found(site: Site, tmp_path: Path) -> None:
    site.cuts = [90_000] + [0] * 4
    with pytest.raises(FetchError):
        get(site, tmp_path)
    part = tmp_path / f"{NAME}.part"
    hurt = bytearray(part.read_bytes())
    hurt[50_000] ^= 1
    part.write_bytes(hurt)
    site.cuts = []
    with pytest.raises(ChecksumError):
        get(site, tmp_path)


@pytest.mark.parametrize("text", [b"<html>no such file</html>", b"", b"d41d8cd9  other.gz\n"])
def test_without_a_published_sum_the_files_own_counts(site: Site, tmp_path: Path, text: bytes) -> None:
    site.files[SUM] = text
    got = get(site, tmp_path)
    assert got.proved_by == run.OWN
    (tmp_path / NAME).unlink()
    hurt = bytearray(BODY)
    hurt[-6] ^= 1
    site.files[PATH] = bytes(hurt)
    with pytest.raises(ChecksumError, match="damaged"):
        get(site, tmp_path)


def test_the_hash_of_the_cloud_counts(site: Site, tmp_path: Path) -> None:
    del site.files[SUM]
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    site.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={right}"}
    assert get(site, tmp_path / "a").proved_by == "md5 of x-goog-hash"
    site.headers = {"x-goog-hash": f"md5={base64.b64encode(bytes(16)).decode()}"}
    with pytest.raises(ChecksumError):
        get(site, tmp_path / "b")


def test_sums_as_the_tools_write_them() -> None:
    value = "AB" * 16
    assert parse_sums(f"{value}  x.gz\n", "md5", "x.gz", "s").value == "ab" * 16  # type: ignore[union-attr]
    assert parse_sums(f"{value} *./dir/x.gz", "md5", "x.gz", "s") is not None
    assert parse_sums(value, "md5", "x.gz", "s") is not None
    assert parse_sums(f"{value}  x\n", "md5", "x.gz", "s") is None
    assert parse_sums(f"{value}  x.gz", "sha256", "x.gz", "s") is None
    assert from_headers({"x-goog-hash": "md5=!!!"}) is None
    assert from_headers({}) is None


def test_damage_inside_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr("a.csv", "1,2,3\n" * 1000)
    assert damage(path) is None
    body = bytearray(path.read_bytes())
    body[2000] ^= 1
    path.write_bytes(body)
    assert "cannot be read on" in str(damage(path))


# ---- addresses -----------------------------------------------------------------------------------------------------


def test_redirects_are_followed_a_few_times(site: Site, tmp_path: Path) -> None:
    site.files["/elsewhere.gz"] = site.files.pop(PATH)
    site.redirects = {PATH: "/hop", "/hop": "/elsewhere.gz"}
    assert Path(get(site, tmp_path).file).name == NAME
    site.redirects = {PATH: "/a", "/a": "/b", "/b": "/a"}
    with pytest.raises(FetchError, match="redirected in a circle"):
        get(site, tmp_path / "b")


@pytest.mark.parametrize("place", ["http://example.com/x.gz", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_leave_neither_https_nor_this_machine(site: Site, tmp_path: Path, place: str) -> None:
    site.redirects = {PATH: place}
    with pytest.raises(FetchError, match=r"not allowed|circle"):
        get(site, tmp_path)
    assert only(tmp_path)


@pytest.mark.parametrize("url", ["http://example.com", "ftp://localhost", "file:///etc", "localhost:80", "http://[::1"])
def test_base_urls_that_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="only https"):
        fetch("nasdaq", [DAY], tmp_path, base_url=url)


def test_loopback_is_told_by_number() -> None:
    assert web.is_loopback("http://127.1.2.3:80/x")
    assert web.is_loopback("http://[::1]/")
    assert not web.is_loopback("http://127.0.0.1.example.com/")
    assert not web.permitted("http://localhost.example.com/")


def test_a_proxy_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Site({PATH: BODY, SUM: sums(BODY)})) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        got = fetch("nasdaq", [DAY], tmp_path, base_url="http://127.0.0.1:9")
        assert (got.bytes, len(proxy.asked(PATH))) == (len(BODY), 1)


def test_retry_after() -> None:
    assert web.retry_after("12") == 12.0
    assert web.retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now=1445412420.0) == 60.0
    assert web.retry_after("soon") is None
    assert web.retry_after(None) is None


# ---- what is asked for ---------------------------------------------------------------------------------------------


def places(sample: str, *words: str, **choice: Any) -> list[str]:
    return [u for u, _ in find_wanted(sample, words, Choice(**choice), None, lambda _: "").urls]


def test_addresses_as_they_are_documented() -> None:
    assert places("nasdaq", DAY)[0] == "https://emi.nasdaq.com/ITCH/Nasdaq%20ITCH/12302019.NASDAQ_ITCH50.gz"
    um = places("binance", "btcusdt", "2024-08-08", market="um", type="bookTicker")
    root = "https://data.binance.vision/data"
    assert um == [f"{root}/futures/um/daily/bookTicker/BTCUSDT/BTCUSDT-bookTicker-2024-08-08.zip"]
    assert not find_wanted("binance", ["X1", "2024-08-08"], Choice("um", "metrics"), None, lambda _: "").readable
    monthly = places("binance", "BTCUSD_PERP", "2024-08", market="cm")
    assert monthly == [f"{root}/futures/cm/monthly/aggTrades/BTCUSD_PERP/BTCUSD_PERP-aggTrades-2024-08.zip"]
    lobster = places("lobster", "amzn", level=5)
    assert lobster[0] == "https://php.lobsterdata.com/info/sample/LOBSTER_SampleFile_AMZN_2012-06-21_5.zip"
    assert len(lobster) == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nasdaq"], "1 word"),
        (["nasdaq", "30-12-2019"], "YYYY-MM-DD"),
        (["lobster", "IBM"], "none of 'IBM'"),
        (["binance", "BTC/USDT", "2024-08-08"], "no Binance symbol"),
        (["binance", "../../x", "2024-08-08"], "no Binance symbol"),
        (["binance", "BTCUSDT", "2024-13"], "YYYY-MM-DD"),
        (["binance", "BTCUSDT", "2024-08-08", "x"], "2 word"),
        (["mars"], "no sample 'mars'"),
    ],
)
def test_words_that_cannot_be_meant(words: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=text):
        fetch(words[0], words[1:], tmp_path)
    with pytest.raises(UsageError, match="spot has aggTrades, trades"):
        fetch("binance", ["BTCUSDT", "2024-08-08"], tmp_path, choice=Choice(type="bookTicker"))


def zipped(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(name, text)
    return out.getvalue()


def test_binance_with_its_checksum(tmp_path: Path) -> None:
    path = "/data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-08-08.zip"
    body = zipped("BTCUSDT-aggTrades-2024-08-08.csv", "1,2,3\n")
    check = f"{hashlib.sha256(body).hexdigest()}  {path.rpartition('/')[2]}\n".encode()
    with serving(Site({path: body, path + ".CHECKSUM": check})) as site:
        got = get(site, tmp_path, "binance", "BTCUSDT", "2024-08-08")
    assert got.proved_by.startswith("sha256 of ")
    assert Path(got.file).read_bytes() == body


def test_lobster_has_no_sum(tmp_path: Path) -> None:
    path = "/info/sample/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"
    with serving(Site({path: zipped("a.csv", "1")})) as site:
        got = get(site, tmp_path, "lobster", "AMZN", choice=Choice(level=1))
    assert got.proved_by == run.OWN
    assert "no sum is published" in got.notices[0]


def entry(link: str, size: int, **more: str) -> dict[str, str]:
    return {"link": link, "date": "20180127", "feed": "DEEP", "version": "1.0", "protocol": "IEXTP1",
            "size": str(size)} | more  # fmt: skip


INDEX = "/api/1.0/hist?date=20180127"


def test_iex_by_its_index(tmp_path: Path) -> None:
    index = [entry("/x", 1, feed="TOPS"), entry("/data/feeds?generation=5", len(BODY)), entry("/old", 5, version="0.9")]
    index[1]["link"] = "/data/20180127.pcap.gz?generation=5"
    with serving(Site({INDEX: json.dumps(index).encode(), "/data/20180127.pcap.gz?generation=5": BODY})) as site:
        got = get(site, tmp_path, "iex", "2018-01-27")
        assert Path(got.file).name == "20180127_IEXTP1_DEEP1.0.pcap.gz"
        assert Path(got.file).read_bytes() == BODY
        site.files[INDEX] = json.dumps([entry("/data/20180127.pcap.gz?generation=5", len(BODY) + 1)]).encode()
        with pytest.raises(ChecksumError, match="the index says"):
            get(site, tmp_path / "other", "iex", "2018-01-27")


@pytest.mark.parametrize("index", ["[]", '"Not Found"', "{}", "<html>", "[{}]"])
def test_an_index_without_the_day(tmp_path: Path, index: str) -> None:
    with serving(Site({INDEX: index.encode()})) as site, pytest.raises(FetchError, match=r"no DEEP on|not the index"):
        get(site, tmp_path, "iex", "2018-01-27")


@pytest.mark.parametrize("field", ["version", "protocol"])
def test_no_name_from_the_index_leaves_the_folder(tmp_path: Path, field: str) -> None:
    evil = [entry("/x.gz", 1, **{field: "../../evil"})]
    with serving(Site({INDEX: json.dumps(evil).encode()})) as site, pytest.raises(FetchError, match="cannot be a file"):
        get(site, tmp_path / "in", "iex", "2018-01-27")
    assert only(tmp_path)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\\b", "a\0b", "a" * 201, "é"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(FetchError):
        safe_name(name)


def test_an_index_link_elsewhere_is_held_to_the_rules(tmp_path: Path) -> None:
    bad = [entry("http://example.com/x.gz", 1)]
    with serving(Site({INDEX: json.dumps(bad).encode()})) as site, pytest.raises(UsageError, match="only https"):
        get(site, tmp_path, "iex", "2018-01-27")


def test_a_link_in_the_way(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").symlink_to(tmp_path / "victim")
    with pytest.raises(UsageError, match="no plain file"):
        get(site, tmp_path)
    assert not (tmp_path / "victim").exists()


def test_two_fetches_of_one_file(site: Site, tmp_path: Path) -> None:
    with download.locked(download.Part(tmp_path / NAME)), pytest.raises(UsageError, match="another fetch"):
        get(site, tmp_path)
    assert get(site, tmp_path).bytes == len(BODY)


# ---- room ----------------------------------------------------------------------------------------------------------


def test_limits_of_size_and_room(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match="the limit is 1,000"):
        get(site, tmp_path, largest=1000)
    site.no_length = True
    with pytest.raises(FetchError, match="more bytes came than the 1,000"):
        get(site, tmp_path, largest=1000)
    site.no_length = False
    usage = type("Usage", (), {"free": download.MARGIN})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="bytes are needed"):
        get(site, tmp_path / "full")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file size")
def test_a_full_disk_keeps_what_fits(site: Site, tmp_path: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    words = [sys.executable, "-B", "-m", "microrisk", "fetch", "nasdaq", DAY, "--out", str(tmp_path)]
    words += ["--base-url", site.url, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=small_files, timeout=60)
    assert done.returncode == 3
    assert f"cannot write {tmp_path / NAME}: File too large" in done.stderr
    assert json.loads(done.stdout)["kind"] == "OutputError"
    assert (tmp_path / f"{NAME}.part").stat().st_size == 40_000
    assert get(site, tmp_path).resumed_from == 40_000


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command(site: Site, tmp_path: Path, run: Callable[..., Any]) -> None:
    words = ("fetch", "nasdaq", DAY, "--out", tmp_path, "--base-url", site.url)
    code, out, _ = run(*words, "--dry-run", "--json")
    assert (code, out["dry_run"], out["bytes"]) == (0, True, 0)
    assert only(tmp_path)
    code, out, _ = run(*words)
    assert code == 0
    assert "proved by md5" in out
    assert f"next: microrisk bench --input {tmp_path / NAME}" in out
    code, out, _ = run(*words, "--json")
    assert (code, out["already"]) == (0, True)
    site.files[SUM] = sums(b"x")
    (tmp_path / NAME).unlink()
    code, out, err = run(*words, "--json")
    assert (code, out["kind"]) == (3, "ChecksumError")
    assert err.startswith("microrisk: ")
    assert run("fetch")[0] == 2


def test_the_list(run: Callable[..., Any]) -> None:
    code, out, _ = run("fetch", "--list", "--json")
    assert code == 0
    assert [s["name"] for s in out["samples"]] == list(SAMPLES)
    assert all(s["terms"] and s["size"] and s["host"].startswith("https://") for s in out["samples"])
    code, text, _ = run("fetch", "--list")
    assert "2019-12-30 (3.5 GB)" in text
    assert listed()[0]["days"]["2019-12-30"] == 3_524_013_057
