"""Which format a file is, told by its first bytes alone.

A recogniser answers for one format and must be silent about every other one; the order below puts the formats with a
magic number first. `BOOK` is a book image in JSON: no feed, but what `--snapshot` wants.
"""

from __future__ import annotations

import re
import struct

from microrisk.errors import FeedError
from microrisk.feed.mold import HEADER as MOLD
from microrisk.feed.open import HEAD, Source
from microrisk.feed.pcap import iter_udp
from microrisk.spec.messages import ITCH_BY_CODE, MOLD_END_OF_SESSION, MOLD_HEARTBEAT

FORMATS = (
    "itch50",
    "dbn",
    "lobster",
    "coinbase",
    "kraken",
    "binance",
    "bitstamp",
    "bybit",
    "cryptofeed",
    "iex",
    "tardis",
)
"""Names that `--format` knows."""
BOOK = "book"

_PCAP = frozenset(map(bytes.fromhex, ("d4c3b2a1", "a1b2c3d4", "4d3cb2a1", "a1b23c4d", "0a0d0d0a")))
# IEX-TP: version 1, reserved 0, protocol id of TOPS or DEEP in little-endian, channel 1
_IEX_SEGMENT = re.compile(rb"\x01\x00[\x01-\x0f]\x80\x01\x00\x00\x00")
_LOBSTER_ROW = re.compile(rb"\d+(\.\d{1,9})?,[1-7],-?\d+,\d+,-?\d+,-?1\r?(\n|$)")
_LOBSTER_IMAGE = re.compile(rb"(-?\d+,\d+,-?\d+,\d+)(,-?\d+,\d+,-?\d+,\d+)*\r?(\n|$)")
LOBSTER_IMAGE = "lobster image"


def recognise(source: Source) -> str | None:
    """One of FORMATS, BOOK, LOBSTER_IMAGE (the orderbook half of a pair), or None."""
    return recognise_bytes(source.head(HEAD))


def recognise_bytes(head: bytes) -> str | None:
    """As `recognise`, from the first bytes of a file (up to HEAD of them)."""
    if head[:3] == b"DBN":
        return "dbn"
    if head[:4] in _PCAP:
        return _capture_format(head)
    if _is_itch(head):
        return "itch50"
    return _text_format(head)


def _capture_format(head: bytes) -> str | None:
    """The format of the first datagrams of a capture that look like one.

    Packets without messages are those of many venues; a capture that begins with more of them than `head` holds is
    taken for ITCH, one that has nothing else for none.
    """
    found = None
    try:
        for datagram in iter_udp(head):
            if _IEX_SEGMENT.match(datagram.payload):
                return "iex"
            sure = _is_mold_itch(datagram.payload)
            if sure:
                return "itch50"
            found = "itch50" if sure is None and len(head) >= HEAD else found
    except FeedError:
        return None
    return found


def _is_mold_itch(payload: memoryview) -> bool | None:
    """Whether a datagram is MoldUDP64 with ITCH inside; None when it has no blocks to tell by."""
    if len(payload) < MOLD.size:
        return False
    _, _, count = MOLD.unpack_from(payload)
    if len(payload) == MOLD.size:
        return None if count in (MOLD_HEARTBEAT, MOLD_END_OF_SESSION) else False
    if len(payload) < MOLD.size + 3 or count in (MOLD_HEARTBEAT, MOLD_END_OF_SESSION):
        return False
    length = payload[MOLD.size] << 8 | payload[MOLD.size + 1]
    message = ITCH_BY_CODE.get(chr(payload[MOLD.size + 2]))
    return message is not None and message.length == length


def is_capture(head: bytes) -> bool:
    """Whether the bytes begin a pcap or pcapng file."""
    return head[:4] in _PCAP


def loose_framing(head: bytes) -> bool:
    """Whether an ITCH file writes a zero in place of every length (some writers do)."""
    return len(head) > 2 and head[:2] == b"\0\0" and chr(head[2]) in ITCH_BY_CODE


def _is_itch(head: bytes) -> bool:
    """The first message is framed: a known type with its length (or a zero length); most of the next ones are too.

    A file with damaged or unknown messages near its beginning still is that format, and its feed says what is wrong.
    """
    at = good = bad = 0
    while at + 3 <= len(head) and good + bad < 8:
        (length,) = struct.unpack_from(">H", head, at)
        message = ITCH_BY_CODE.get(chr(head[at + 2]))
        if message is not None and length in (0, message.length):
            good += 1
            length = message.length
        elif good and length == 0:
            break  # the end mark
        else:
            bad += 1
        if not good:
            return False
        at += 2 + length
    return good > bad


def _text_format(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if _LOBSTER_ROW.match(text):
        return "lobster"
    if _LOBSTER_IMAGE.match(text):
        return LOBSTER_IMAGE
    for name, pattern in _TEXT_FORMATS:
        if pattern.search(text):
            return name
    return None


# \A pins the beginning; without it the mark may stand anywhere in the head
_TEXT_FORMATS = (
    ("cryptofeed", re.compile(rb"\A(wss?|https?)://\S+ (<->|->|<-) ")),
    ("tardis", re.compile(rb"\Aexchange,symbol,timestamp,local_timestamp,")),
    ("bitstamp", re.compile(rb'\Aid,timestamp,exchange_timestamp,|"(live_orders|diff_order_book|order_book)_')),
    (
        "binance",  # files of trades and bars, with a header or without
        re.compile(
            rb"\A(agg_trade_id,price,|id,price,qty,quote_qty,time,|open_time,open,high,low,close,"
            rb"|\d+,[\d.]+,[\d.]+,(\d+,\d+|[\d.]+),\d{13,16},([Tt]rue|[Ff]alse)[,\r\n]"
            rb"|\d{13,16}(,[\d.]+){5},\d{13,16},)"
        ),
    ),
    ("binance", re.compile(rb'"e": ?"depthUpdate"|"stream": ?"\w+@|\A\{\s*"lastUpdateId"')),
    ("bybit", re.compile(rb'"topic": ?"orderbook')),
    ("kraken", re.compile(rb'"channel": ?"(book|level3)"|"book-(10|25|100|500|1000)"')),
    (BOOK, re.compile(rb'\A\{\s*("sequence": ?\d+,\s*)?"(asks|bids)": ?\[')),
    ("coinbase", re.compile(rb'\A[\[{].*?"(product_id|sequence|type)": ?.*?"(product_id|sequence|type)": ', re.DOTALL)),
    ("coinbase", re.compile(rb'\A[\[{].*?"(product_id|sequence|type)":.*?"(product_id|sequence|type)":', re.DOTALL)),
)
