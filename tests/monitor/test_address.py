"""Addresses of sources: what they mean, what is refused and with which remedy, and that no secret is in them."""

import contextlib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.errors import UsageError
from microrisk.monitor.address import (
    OPTIONS,
    CoinbaseOptions,
    FileOptions,
    KrakenOptions,
    MoldOptions,
    SoupOptions,
    SourceSpec,
    from_keys,
    parse,
    unique,
)
from microrisk.monitor.keys import Endpoint

MOLD = (
    "moldudp64://239.1.1.1:30001?b=239.1.1.2:30002&request=127.0.0.1:1,localhost:2&glimpse=[::1]:5"
    "&interface=127.0.0.2&session=S1&date=2019-12-30&venue=XBOS&name=N"
)


def test_moldudp64_in_full():
    spec = parse(MOLD)
    options = spec.options
    assert isinstance(options, MoldOptions)
    assert (spec.scheme, spec.name, spec.venue, spec.host, spec.port) == ("moldudp64", "N", "XBOS", "239.1.1.1", 30001)
    assert options.b == Endpoint("239.1.1.2", 30002)
    assert options.request == (Endpoint("127.0.0.1", 1), Endpoint("localhost", 2))
    assert options.glimpse == Endpoint("::1", 5)
    assert (options.interface, options.session, options.date) == ("127.0.0.2", "S1", date(2019, 12, 30))


def test_other_kinds():
    file = parse("file:/data/a%20b.itch?speed=0&format=itch50")
    assert file.path == "/data/a b.itch"
    assert isinstance(file.options, FileOptions)
    assert (file.options.speed, file.options.format, file.name) == (0.0, "itch50", "a-b.itch")
    soup = parse("soupbintcp://[::1]:9000?user=abc")
    assert (soup.host, soup.port) == ("::1", 9000)
    assert isinstance(soup.options, SoupOptions)
    coinbase = parse("coinbase:BTC-USD,ETH-USD?url=ws://127.0.0.1:1/x&rest=http://127.0.0.1:2&channel=level2")
    assert coinbase.products == ("BTC-USD", "ETH-USD")
    assert isinstance(coinbase.options, CoinbaseOptions)
    assert (coinbase.options.url, coinbase.options.channel) == ("ws://127.0.0.1:1/x", "level2")
    kraken = parse("kraken:BTC/USD?depth=25")
    assert isinstance(kraken.options, KrakenOptions)
    assert (kraken.products, kraken.options.depth, kraken.venue) == (("BTC/USD",), 25, "KRAKEN")
    assert parse("binance:BTCUSDT").name == "binance"
    assert parse("bitstamp:btcusd").venue == "BITSTAMP"


def test_a_path_that_exists_is_a_file(tmp_path):
    odd = tmp_path / "50%?.itch"
    odd.touch()
    assert parse(str(odd)).path == str(odd)


def test_the_loopback_interface_is_the_default():
    options = parse("moldudp64://239.1.1.1:30001").options
    assert isinstance(options, MoldOptions)
    assert options.interface == "127.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        MOLD,
        "file:/data/a%20b%3F%25.itch?speed=0&name=x",
        "soupbintcp://[::1]:9000?user=abc&password_file=/run/secret%26x",
        "coinbase:BTC-USD?url=wss://h/a%3Fx=1%26y=2",
        "kraken:BTC/USD,ETH/USD?depth=1000",
    ],
)
def test_the_canonical_address_means_the_same(text):
    spec = parse(text)
    assert parse(spec.url) == spec
    assert parse(parse(spec.url).url).url == spec.url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("coinbse:BTC-USD", ["coinbse", "did you mean coinbase", "moldudp64"]),
        ("coinbase:BTC-USD?chanel=full", ["chanel", "did you mean channel", "connect_s"]),
        ("coinbase:BTC-USD?channel=ful", ["channel", "ful", "level2"]),
        ("coinbase:BTC-USD?channel=full&channel=full", ["channel", "twice"]),
        ("coinbase:BTC-USD?channel", ["channel", "name=value"]),
        ("coinbase:", ["symbol"]),
        ("coinbase:BTC-USD,BTC-USD", ["twice"]),
        ("coinbase:../../etc", ["symbol"]),
        ("coinbase:BTC-USD?url=http://h", ["url", "wss"]),
        ("coinbase:BTC-USD?url=ws://h:0/", ["url", "wss"]),
        ("coinbase:BTC-USD?rest=ws://h", ["rest", "https"]),
        ("kraken:BTC/USD?depth=11", ["depth", "1000"]),
        ("kraken:BTC/USD?rest=http://h", ["rest", "url"]),
        ("wss://ws-feed.exchange.coinbase.com", ["venue first"]),
        ("moldudp64:239.1.1.1:1", ["moldudp64://HOST:PORT"]),
        ("moldudp64://239.1.1.1", ["HOST:PORT"]),
        ("moldudp64://239.1.1.1:70000", ["65535"]),
        ("moldudp64://a:1?request=b", ["request", "HOST:PORT"]),
        ("moldudp64://a:1?interface=eth0", ["interface", "IP address"]),
        ("moldudp64://a:1?window=1", ["window", "64"]),
        ("moldudp64://a:1?session=ABCDEFGHIJK", ["session", "10"]),
        ("moldudp64://a:1?user=x", ["glimpse"]),
        ("moldudp64://a:1?name=../x", ["name", "letters"]),
        ("moldudp64://a:1?name=x%0A", ["name", "letters"]),
        ("moldudp64://a:1?venue=xnas", ["venue", "capitals"]),
        ("moldudp64://a:1?date=30.12.2019", ["date", "YYYY-MM-DD"]),
        ("file:x?speed=nan", ["speed"]),
        ("file:x?speed=-1", ["speed"]),
        ("file:", ["path"]),
        ("file:a%00b", ["path"]),
        ("", ["1 to 8192"]),
        ("coinbase:" + "A" * 9000, ["8192"]),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_remedy(text, parts):
    with pytest.raises(UsageError) as error:
        parse(text)
    assert len(str(error.value)) < 500
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "soupbintcp://u:hunter2@h:1",
        "soupbintcp://h:1?password=hunter2",
        "soupbintcp://h:1?PASSWORD=hunter2",
        "soupbintcp://h:1?token=hunter2",
        "coinbase:BTC-USD?url=wss://u:hunter2@h/",
        "coinbase:BTC-USD?url=wss://h/?api_key%3Dhunter2",
        "coinbase:BTC-USD?rest=https://h/?token%3Dhunter2",
        "wss://u:hunter2@h/",
        "ftp://u:hunter2@h/",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text):
    with pytest.raises(UsageError) as error:
        parse(text)
    assert "hunter2" not in str(error.value)


def test_keys_say_the_same_as_an_address():
    assert from_keys({"url": MOLD}) == parse(MOLD)
    table = {"kind": "coinbase", "products": ["BTC-USD"], "channel": "level2", "url": "ws://127.0.0.1:1"}
    assert from_keys(table) == parse("coinbase:BTC-USD?channel=level2&url=ws://127.0.0.1:1")
    mold = {"kind": "moldudp64", "address": "239.1.1.1:30001", "request": ["h:1"], "date": date(2019, 12, 30)}
    assert from_keys(mold) == parse("moldudp64://239.1.1.1:30001?request=h:1&date=2019-12-30")
    assert from_keys({"url": "kraken:BTC/USD", "depth": 25, "name": "k"}) == parse("kraken:BTC/USD?depth=25&name=k")


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({}, "kinds:"),
        ({"kind": "coinbas", "products": ["A"]}, "did you mean coinbase"),
        ({"kind": "coinbase"}, "products is missing"),
        ({"kind": "coinbase", "address": "h:1"}, "its target is products"),
        ({"kind": "kraken", "products": ["A"], "depth": "25"}, "depth"),
        ({"kind": "soupbintcp", "address": "h:1", "password": "x"}, "password_file"),
        ({"kind": 3}, "kinds:"),
    ],
)
def test_wrong_tables(table, part):
    with pytest.raises(UsageError, match=part):
        from_keys(table)


def test_names_are_unique():
    made = unique([parse("coinbase:A"), parse("coinbase:B"), parse("coinbase:C")])
    assert [s.name for s in made] == ["coinbase", "coinbase-2", "coinbase-3"]
    with pytest.raises(UsageError, match="two feeds"):
        unique([parse("coinbase:A?name=x"), parse("kraken:B?name=x")])


def test_replace_keeps_the_rest():
    spec = parse(MOLD).replace({"window": "128"})
    assert isinstance(spec.options, MoldOptions)
    assert (spec.options.window, spec.name, spec.options.session) == (128, "N", "S1")


@given(st.text(max_size=200))
def test_any_text_is_an_address_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert isinstance(parse(text), SourceSpec)


@given(st.sampled_from(sorted(OPTIONS)), st.text(max_size=60), st.text(max_size=60))
def test_any_target_and_query(scheme, target, query):
    try:
        spec = parse(f"{scheme}:{'//' if scheme in ('moldudp64', 'soupbintcp') else ''}{target}?{query}")
    except UsageError:
        return
    assert parse(spec.url) == spec
