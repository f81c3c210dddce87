"""Public samples of market data: where they lie, how they are called there, what proves them, under which terms.

Sources. Nasdaq: the listing of emi.nasdaq.com/ITCH and scripts that read it (both series of names, `.md5sum` beside
some days, an HTML page instead of others). LOBSTER: the links of its sample page; the old host under `php.` answers
programs, the others may show a form. Binance: github.com/binance/binance-public-data, README ("Each zip file has a
.CHECKSUM file"). IEX: iextrading.com/api/1.0/hist, a list by day of {link, date, feed, version, protocol, size}.

None of these servers was reached when this was written: addresses are as documented, downloads were tested against
servers on the loopback interface only.
"""

from __future__ import annotations

from dataclasses import dataclass

GZIP, ZIP = b"\x1f\x8b", b"PK"
PCAP = (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a")
"""First bytes of files; a server that answers with a web page is found out by them."""


@dataclass(frozen=True)
class Sample:
    """One public source.

    Attributes
    ----------
    name : first word of `fetch`
    what : what a file holds
    usage : how to ask for one
    example : a whole command
    hosts : base URLs, tried in order
    paths : path templates, tried in order at each host
    sums : templates of the checksum file, beside the file; {file} = its name, {stem} = without the last ending
    algorithm : of the checksum file; "" = none is published
    size : of one file, in words
    terms : licence or terms, as far as they are stated
    starts : what the first bytes may be
    """

    name: str
    what: str
    usage: str
    example: str
    hosts: tuple[str, ...]
    paths: tuple[str, ...]
    sums: tuple[str, ...]
    algorithm: str
    size: str
    terms: str
    starts: tuple[bytes, ...]


NASDAQ = Sample(
    "nasdaq",
    "a whole Nasdaq day, TotalView-ITCH 5.0, every order of every stock",
    "nasdaq YYYY-MM-DD",
    "microrisk fetch nasdaq 2019-12-30 --out data",
    ("https://emi.nasdaq.com",),
    ("/ITCH/Nasdaq%20ITCH/{mmddyyyy}.NASDAQ_ITCH50.gz", "/ITCH/Nasdaq%20ITCH/S{mmddyy}-v50.txt.gz"),
    ("{stem}.md5sum", "{file}.md5sum"),
    "md5",
    "3.5 to 6 GB a day, 9 to 14 GB unpacked",
    "samples that Nasdaq gives to developers; no licence stands beside them: use them, do not pass them on",
    (GZIP,),
)
LOBSTER = Sample(
    "lobster",
    "one stock on 2012-06-21, messages and book images in CSV",
    "lobster AAPL|AMZN|GOOG|INTC|MSFT [--level 1|5|10]",
    "microrisk fetch lobster AMZN --level 10 --out data",
    ("https://php.lobsterdata.com", "https://lobsterdata.com", "https://data.lobsterdata.com"),
    ("/info/sample/LOBSTER_SampleFile_{symbol}_2012-06-21_{level}.zip",),
    (),
    "",
    "1 to 15 MB",
    "free samples of lobsterdata.com made from Nasdaq data; no licence stated",
    (ZIP,),
)
BINANCE = Sample(
    "binance",
    "one symbol and day (or month): aggTrades, trades, bookTicker and more in CSV",
    "binance SYMBOL YYYY-MM-DD|YYYY-MM [--market spot|um|cm] [--type aggTrades|trades|bookTicker|bookDepth|metrics]",
    "microrisk fetch binance BTCUSDT 2024-08-08 --type aggTrades --out data",
    ("https://data.binance.vision",),
    ("/data/{market}/{period}/{type}/{symbol}/{symbol}-{type}-{date}.zip",),
    ("{file}.CHECKSUM",),
    "sha256",
    "0.1 to 500 MB",
    "Binance's terms of use",
    (ZIP,),
)
IEX = Sample(
    "iex",
    "a whole IEX day as a capture of its multicast: DEEP (price levels), TOPS (best), DPLS (orders)",
    "iex YYYY-MM-DD [--feed deep|tops|dpls]",
    "microrisk fetch iex 2018-01-27 --feed deep --out data",
    ("https://iextrading.com",),
    ("/api/1.0/hist?date={yyyymmdd}",),
    (),
    "",
    "0.5 to 13 GB a trading day; a Saturday of tests is under 1 MB",
    "IEX Historical Data Terms of Use (iex.io/legal/hist-data-terms): Data provided for free by IEX",
    (GZIP, *PCAP),
)
SAMPLES = {s.name: s for s in (NASDAQ, LOBSTER, BINANCE, IEX)}

NASDAQ_DAYS = {
    "2019-01-30": 4_764_426_091,
    "2019-03-27": 5_510_131_732,
    "2019-07-30": 3_662_140_094,
    "2019-08-30": 4_075_649_457,
    "2019-10-30": 3_872_931_242,
    "2019-12-30": 3_524_013_057,
    "2020-01-30": 5_597_158_940,
}
"""Days seen in the listing, with their compressed bytes there; days come and go."""
LOBSTER_SYMBOLS = ("AAPL", "AMZN", "GOOG", "INTC", "MSFT")
LOBSTER_LEVELS = (1, 5, 10)
BINANCE_MARKETS = {"spot": "spot", "um": "futures/um", "cm": "futures/cm"}
BINANCE_TYPES = {
    "spot": ("aggTrades", "trades"),
    "um": ("aggTrades", "trades", "bookTicker", "bookDepth", "metrics"),
    "cm": ("aggTrades", "trades", "bookTicker", "bookDepth", "metrics"),
}
IEX_FEEDS = {"deep": "DEEP", "tops": "TOPS", "dpls": "DPLS"}
