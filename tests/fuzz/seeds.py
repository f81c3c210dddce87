"""Small inputs in every format, written from the published layouts with invented values; nothing comes from a recording.

`TEXTS` are what the line mutator of `edge.py` starts from. Run as a program it writes the seeds of the fuzz targets:
`python tests/fuzz/seeds.py FOLDER`.
"""

from __future__ import annotations

import random
import struct
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import databento_dbn as dbn

from microrisk.feed.mold import capture_bytes, packetize, timed_messages
from microrisk.feed.pcap import Endpoint, pcap_header, pcap_record
from microrisk.spec.iex import DEEP, DEEP_PLUS, TOPS, by_code

GOLDEN = Path(__file__).parents[1] / "golden" / "itch_all_types.bin"
T0 = 1_600_000_000

_COINBASE = """[{"type":"received","sequence":11,"order_id":"aa-1","product_id":"BTC-USD","side":"buy","price":"100.10","size":"2","order_type":"limit","time":"2018-01-01T00:00:00.000001Z"},
{"type":"open","sequence":12,"order_id":"aa-1","product_id":"BTC-USD","side":"buy","price":"100.10","remaining_size":"2","time":"2018-01-01T00:00:00.000002Z"},
{"type":"match","sequence":13,"maker_order_id":"aa-1","taker_order_id":"aa-2","product_id":"BTC-USD","side":"buy","price":"100.10","size":"0.5","trade_id":7,"time":"2018-01-01T00:00:01.5Z"},
{"type":"change","sequence":14,"order_id":"aa-1","product_id":"BTC-USD","side":"buy","price":"100.10","old_size":"1.5","new_size":"1","time":"2018-01-01T00:00:02Z"},
{"type":"done","sequence":15,"order_id":"aa-1","product_id":"BTC-USD","side":"buy","price":"100.10","remaining_size":"1","reason":"canceled","time":"2018-01-01T00:00:03Z"}]
"""
_COINBASE_IMAGE = (
    """{"sequence":10,"bids":[["100.00","1","bb-1"],["99.5","2","bb-2"]],"asks":[["101.00","3","bb-3"]]}"""
)
_COINBASE_L2 = f"""wss://ws-feed.pro.coinbase.com <-> {T0}.5
{T0}.6: {{"type":"snapshot","product_id":"BTC-USD","asks":[["101","1"],["102","2"]],"bids":[["100","1"],["99","2"]]}}
{T0}.7: {{"type":"l2update","product_id":"BTC-USD","changes":[["sell","101","0"],["buy","100.5","3"]],"time":"2021-04-17T16:43:37.075687Z"}}
{T0}.8: {{"type":"match","product_id":"BTC-USD","side":"buy","price":"100.5","size":"1","trade_id":7,"sequence":9,"time":"2021-04-17T16:43:38Z"}}
"""
_KRAKEN = f"""wss://ws.kraken.com <-> {T0}.5
wss://ws.kraken.com <- {T0}.6: {{"event":"subscribe","pair":["XBT/USD"],"subscription":{{"name":"book","depth":10}}}}
{T0}.7: {{"channelID":1,"channelName":"book-10","event":"subscriptionStatus","pair":"XBT/USD","status":"subscribed","subscription":{{"depth":10,"name":"book"}}}}
{T0}.8: [1,{{"as":[["101.0","1.00000000","{T0}.100000"],["102.0","2.00000000","{T0}.100000"]],"bs":[["100.0","1.00000000","{T0}.100000"]]}},"book-10","XBT/USD"]
{T0}.9: [1,{{"a":[["101.0","0.00000000","{T0}.200000"],["103.0","1.00000000","{T0}.300000","r"]],"c":"2347424994"}},"book-10","XBT/USD"]
{T0 + 1}.0: [1,{{"b":[["100.5","4.00000000","{T0}.400000"]],"c":"0"}},"book-10","XBT/USD"]
"""
_KRAKEN_V2 = f"""wss://ws.kraken.com/v2 <-> {T0}.5
{T0}.8: {{"channel":"book","type":"snapshot","data":[{{"symbol":"BTC/USD","bids":[{{"price":100.0,"qty":1.5}}],"asks":[{{"price":101.0,"qty":2.5}}],"checksum":1646899735}}]}}
{T0}.9: {{"channel":"book","type":"update","data":[{{"symbol":"BTC/USD","bids":[{{"price":100.0,"qty":0.0}}],"asks":[],"checksum":456,"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}
"""
_BINANCE = f"""wss://stream.binance.com:9443/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker <-> {T0}.1
{T0}.2: {{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{T0}200,"s":"BTCUSDT","U":99,"u":105,"b":[["100.00","1.5"]],"a":[["101.00","0"]]}}}}
{T0}.3: {{"stream":"btcusdt@bookTicker","data":{{"u":105,"s":"BTCUSDT","b":"100.00","B":"1.5","a":"102.00","A":"1"}}}}
{T0}.4: {{"stream":"btcusdt@trade","data":{{"e":"trade","E":{T0}400,"T":{T0}400,"s":"BTCUSDT","t":7,"p":"100.00","q":"0.5","m":true}}}}
"""
_BINANCE_REST = f"""https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000 -> {T0}.25: {{"lastUpdateId":100,"bids":[["100.00","1"],["99.00","2"]],"asks":[["102.00","1"]]}}
"""
_BINANCE_RAW = f"""{T0}200000000 {{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate","E":{T0}200,"T":{T0}199,"s":"BTCUSDT","U":90,"u":99,"pu":89,"b":[["100.0","1"]],"a":[["101.0","2"]]}}}}
{T0}300000000 {{"lastUpdateId":100,"E":{T0}250,"T":{T0}250,"bids":[["100.0","3"]],"asks":[["101.0","4"]]}}
{T0}400000000 {{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate","E":{T0}400,"T":{T0}399,"s":"BTCUSDT","U":100,"u":120,"pu":99,"b":[["100.0","0"]],"a":[]}}}}
{T0}500000000 {{"stream":"btcusdt@bookTicker","data":{{"e":"bookTicker","u":121,"s":"BTCUSDT","b":"99.0","B":"1","a":"101.0","A":"4","T":{T0}500,"E":{T0}500}}}}
{T0}600000000 {{"stream":"btcusd_perp@depth@0ms","data":{{"e":"depthUpdate","E":{T0}600,"T":{T0}599,"s":"BTCUSD_PERP","ps":"BTCUSD","U":1,"u":2,"pu":0,"b":[["5","1"]],"a":[]}}}}
"""
_BITSTAMP_CSV = f"""id,timestamp,exchange_timestamp,price,volume,action,direction
7001,{T0}203,{T0}201,100.0,1.5,created,bid
7002,{T0}204,{T0}202,101.0,2,created,ask
7001,{T0}205,{T0}203,100.0,1,changed,bid
7002,{T0}206,{T0}204,101.0,0,deleted,ask
"""
_BITSTAMP = f"""wss://ws.bitstamp.net/ <-> {T0}.5
{T0}.6: {{"event":"order_created","channel":"live_orders_btcusd","data":{{"id":1,"id_str":"1","order_type":0,"amount":1.5,"amount_str":"1.5","price":100,"price_str":"100","microtimestamp":"{T0}600000","datetime":"{T0}"}}}}
{T0}.7: {{"event":"data","channel":"diff_order_book_btcusd","data":{{"timestamp":"{T0}","microtimestamp":"{T0}700000","bids":[["100","1"],["99","0"]],"asks":[["101","2"]]}}}}
{T0}.8: {{"event":"trade","channel":"live_trades_btcusd","data":{{"id":7,"timestamp":"{T0}","amount":1,"amount_str":"1.0","price":100,"price_str":"100","type":0,"microtimestamp":"{T0}800000","buy_order_id":1,"sell_order_id":2}}}}
"""
_BITSTAMP_REST = f"""https://www.bitstamp.net/api/v2/order_book/btcusd -> {T0}.55: {{"timestamp":"{T0}","microtimestamp":"{T0}550000","bids":[["100","1"]],"asks":[["101","2"]]}}
"""
_BYBIT = f"""{{"topic":"orderbook.500.BTCUSDT","type":"snapshot","ts":{T0}000,"data":{{"s":"BTCUSDT","b":[["100.0","1"],["99.0","2"]],"a":[["101.0","3"]],"u":1,"seq":10}},"cts":{T0}000}}
{{"topic":"orderbook.500.BTCUSDT","type":"delta","ts":{T0}100,"data":{{"s":"BTCUSDT","b":[["100.0","0"]],"a":[["102.0","3"]],"u":2,"seq":12}},"cts":{T0}099}}
"""
_BYBIT_V2 = f"""wss://stream.bybit.com/realtime_public <-> {T0}.1
{T0}.2: {{"topic":"orderBookL2_25.BTCUSDT","type":"snapshot","data":{{"order_book":[{{"price":"100.0","symbol":"BTCUSDT","id":"1000000","side":"Buy","size":2.5}},{{"price":"101.0","symbol":"BTCUSDT","id":"1010000","side":"Sell","size":1}}]}},"cross_seq":"10","timestamp_e6":"{T0}200000"}}
{T0}.3: {{"topic":"orderBookL2_25.BTCUSDT","type":"delta","data":{{"delete":[{{"price":"100.0","symbol":"BTCUSDT","id":"1000000","side":"Buy"}}],"update":[{{"price":"101.0","symbol":"BTCUSDT","id":"1010000","side":"Sell","size":3}}],"insert":[{{"price":"99.0","symbol":"BTCUSDT","id":"990000","side":"Buy","size":1}}]}},"cross_seq":"11","timestamp_e6":"{T0}300000"}}
"""
_BITFINEX = f"""wss://api.bitfinex.com/ws/2 <-> {T0}.1
wss://api.bitfinex.com/ws/2 <- {T0}.2: {{"event":"conf","flags":65536}}
{T0}.3: {{"event":"subscribed","channel":"book","chanId":5,"symbol":"tBTCUSD","prec":"R0","freq":"F0","len":"100","pair":"BTCUSD"}}
{T0}.4: [5,[[11,100.5,1.5],[12,101.5,-2]],1]
{T0}.5: [5,[11,0,1],2]
{T0}.6: [5,"hb",3]
{T0}.7: {{"event":"subscribed","channel":"book","chanId":6,"symbol":"tETHUSD","prec":"P0","freq":"F0","len":"25","pair":"ETHUSD"}}
{T0}.8: [6,[[10.5,1,3],[10.6,2,-1]],4]
{T0}.9: [6,[10.5,0,1],5]
{T0}.95: [6,"te",[7,{T0}000,0.5,10.6],6]
"""
_BITMEX = f"""wss://www.bitmex.com/realtime <-> {T0}.1
{T0}.2: {{"table":"orderBookL2","action":"partial","keys":["symbol","id","side"],"data":[{{"symbol":"XBTUSD","id":8799,"side":"Sell","size":100,"price":101.5}},{{"symbol":"XBTUSD","id":8800,"side":"Buy","size":50,"price":100}}]}}
{T0}.3: {{"table":"orderBookL2","action":"update","data":[{{"symbol":"XBTUSD","id":8799,"side":"Sell","size":90}}]}}
{T0}.4: {{"table":"orderBookL2","action":"insert","data":[{{"symbol":"XBTUSD","id":8801,"side":"Buy","size":10,"price":99.5}}]}}
{T0}.5: {{"table":"orderBookL2","action":"delete","data":[{{"symbol":"XBTUSD","id":8800,"side":"Buy"}}]}}
{T0}.6: {{"table":"trade","action":"insert","data":[{{"timestamp":"2021-07-22T22:36:10.014Z","symbol":"XBTUSD","side":"Buy","size":5,"price":101.5}}]}}
{T0}.7: {{"table":"quote","action":"insert","data":[{{"timestamp":"2021-07-22T22:36:10.014Z","symbol":"XBTUSD","bidSize":10,"bidPrice":99.5,"askPrice":101.5,"askSize":90}}]}}
"""
_DERIBIT = f"""wss://www.deribit.com/ws/api/v2 <-> {T0}.1
{T0}.2: {{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC-PERPETUAL.raw","data":{{"type":"snapshot","timestamp":{T0}200,"instrument_name":"BTC-PERPETUAL","change_id":7,"bids":[["new",100.5,10.0]],"asks":[["new",101.0,20.0]]}}}}}}
{T0}.3: {{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC-PERPETUAL.raw","data":{{"type":"change","timestamp":{T0}300,"prev_change_id":7,"instrument_name":"BTC-PERPETUAL","change_id":9,"bids":[["delete",100.5,0.0]],"asks":[["change",101.0,5.0]]}}}}}}
"""
_TARDIS_BOOK = f"""exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount
deribit,BTC-PERPETUAL,{T0}200000,{T0}300000,true,ask,101.5,10
deribit,BTC-PERPETUAL,{T0}200000,{T0}300000,true,bid,100,20
deribit,BTC-PERPETUAL,{T0}400000,{T0}500000,false,bid,100,0
"""
_TARDIS_TRADES = f"""exchange,symbol,timestamp,local_timestamp,id,side,price,amount
bitmex,XBTUSD,{T0}200000,{T0}300000,aa-bb,sell,100.5,10
bitmex,XBTUSD,{T0}210000,{T0}310000,,unknown,100.5,1
"""
_TARDIS_QUOTES = f"""exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount
binance,BTCUSDT,{T0}200000,{T0}300000,5,101,100,6
binance,BTCUSDT,{T0}210000,{T0}310000,,,100,6
"""
_TARDIS_IMAGES = f"""exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount
binance,BTCUSDT,{T0}200000,{T0}300000,101,5,100,6
binance,BTCUSDT,{T0}210000,{T0}310000,102,5,,
"""
_LOBSTER = """34200.004241176,1,16113575,18,5853300,1
34200.025551909,2,16113575,8,5853300,1
34200.2,4,16113575,5,5853300,1
34200.3,5,0,5,5853300,1
34200.4,3,16113575,5,5853300,1
34200.5,7,0,0,-1,-1
"""
_LOBSTER_IMAGE = """5859400,200,5853300,18
5859400,200,5853300,10
5859400,200,5853300,5
5859400,200,5853300,5
5859400,200,-9999999999,0
5859400,200,-9999999999,0
"""

TEXTS: dict[str, tuple[str, str, str]] = {
    "coinbase": ("coinbase", _COINBASE, _COINBASE_IMAGE),
    "coinbase l2": ("cryptofeed", _COINBASE_L2, ""),
    "kraken": ("cryptofeed", _KRAKEN, ""),
    "kraken v2": ("cryptofeed", _KRAKEN_V2, ""),
    "binance": ("cryptofeed", _BINANCE, _BINANCE_REST),
    "binance raw": ("binance", _BINANCE_RAW, ""),
    "bitstamp log": ("bitstamp", _BITSTAMP_CSV, ""),
    "bitstamp": ("cryptofeed", _BITSTAMP, _BITSTAMP_REST),
    "bybit": ("bybit", _BYBIT, ""),
    "bybit v2": ("cryptofeed", _BYBIT_V2, ""),
    "bitfinex": ("cryptofeed", _BITFINEX, ""),
    "bitmex": ("cryptofeed", _BITMEX, ""),
    "deribit": ("cryptofeed", _DERIBIT, ""),
    "tardis book": ("tardis", _TARDIS_BOOK, ""),
    "tardis trades": ("tardis", _TARDIS_TRADES, ""),
    "tardis quotes": ("tardis", _TARDIS_QUOTES, ""),
    "tardis images": ("tardis", _TARDIS_IMAGES, ""),
    "lobster": ("lobster", _LOBSTER, _LOBSTER_IMAGE),
}
"""Name -> format, the recording, and the file that goes with it (a book image, REST answers, or nothing)."""


# -- binary formats --------------------------------------------------------------------------------------------------


def mold_capture() -> bytes:
    """The golden ITCH messages in MoldUDP64 packets, one packet missing."""
    messages = timed_messages(GOLDEN.read_bytes(), T0 * 1_000_000_000)
    return b"".join(capture_bytes(packetize(messages, max_messages=4), drop={2}))


def iex_message(protocol: int, code: str, n: int) -> bytes:
    """One message of a type, with numbers that fit together from one to the next."""
    out = b""
    for f in by_code(protocol)[code].fields:
        if f.name == "type":
            out += code.encode()
        elif f.name == "symbol":
            out += (b"ZVZZT   ", b"IEXE    ")[n % 2]
        elif f.name == "side":
            out += b"85"[n % 2 : n % 2 + 1]
        else:
            value = {
                "timestamp": T0 * 10**9 + n,
                "price": 10_000 + n,
                "order_id": 1 + n % 3,
                "size": 100,
                "flags": n % 2,
            }
            out += (value.get(f.name, 0)).to_bytes(f.size, "little")
    return out


def iex_capture(protocol: int) -> bytes:
    """Three segments of every type of a protocol; the last one restarts the stream."""
    codes = sorted(by_code(protocol))
    out, first, offset = [pcap_header()], 1, 0
    for n, start in enumerate((first, first + len(codes), 1)):
        blocks = [iex_message(protocol, code, i + n) for i, code in enumerate(codes)]
        payload = b"".join(struct.pack("<H", len(m)) + m for m in blocks)
        ts = (T0 + 3 * n) * 10**9
        head = struct.pack("<BBHIIHHqqq", 1, 0, protocol, 1, 7, len(payload), len(blocks), offset, start, ts)
        out.append(pcap_record(ts, Endpoint().frame(head + payload, n)))
        offset = 0 if n == 1 else offset + len(payload)
    return b"".join(out)


def dbn_file() -> bytes:
    """DBN metadata and four `mbo` records."""
    interval = SimpleNamespace(start_date=date(2024, 1, 1), end_date=date(2024, 1, 30), symbol="7")
    mapping: Any = SimpleNamespace(raw_symbol="ESH4", intervals=[interval])
    meta = dbn.Metadata(
        dataset="GLBX.MDP3", schema=dbn.Schema.MBO, start=0, stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID, symbols=["ESH4"], partial=[], not_found=[], mappings=[mapping],
    ).encode()  # fmt: skip
    rows = [(b"R", b"N", 0), (b"A", b"B", 100), (b"A", b"A", 101), (b"M", b"B", 99), (b"F", b"B", 99), (b"C", b"B", 99)]
    records = [
        struct.pack("<BBHIQQqIBBcc", 14, 160, 1, 7, T0 * 10**9 + n, n % 3, px * 10**9, 5, 128, 0, action, side)
        + struct.pack("<QiI", T0 * 10**9 + n, 5, n)
        for n, (action, side, px) in enumerate(rows)
    ]
    return bytes(meta) + b"".join(records)


BINARIES: dict[str, tuple[str, bytes]] = {
    "itch50": ("itch50", GOLDEN.read_bytes()),
    "mold": ("itch50", mold_capture()),
    "tops": ("iex", iex_capture(TOPS)),
    "deep": ("iex", iex_capture(DEEP)),
    "deep plus": ("iex", iex_capture(DEEP_PLUS)),
    "dbn": ("dbn", dbn_file()),
}


def decoder_seeds() -> dict[str, bytes]:
    """Inputs of fuzz_decode: way, options, places of cuts, then the bytes."""
    cuts = struct.pack("<HHH", 40, 333, 701)
    out = {f"itch-{how}": bytes([0, how]) + cuts + GOLDEN.read_bytes() for how in range(4)}
    out["mold"] = bytes([1, 0x35]) + cuts[:2] + mold_capture()
    for n, protocol in enumerate((TOPS, DEEP, DEEP_PLUS)):
        out[f"iex-{n}"] = bytes([2, 0x30 | n << 1]) + cuts[:2] + iex_capture(protocol)
    for n in range(24):
        script = bytes([3 + n % 2, n * 37 % 256 | 2, n * 53 % 256, 0x21 + n * 2])
        for i in range(24):
            script += bytes([3, 0, i, i * 5, 8, *range(i, i + 8), i, i + 1, 6, *range(6), i + 2, 9, 0])
        out[f"script-{n}"] = script
    out["many-symbols"] = bytes([4, 0, 0, 0x21]) + bytes([14, 0]) * 6
    return out


def live_seeds(n: int = 24) -> dict[str, bytes]:
    """Scripts of fuzz_live: the first byte chooses window, session and start, every other is part of a step."""
    out = {}
    for i in range(n):
        rng = random.Random(i)
        steps = (rng.choice([rng.randrange(256), rng.randrange(32), 0]) for _ in range(rng.choice([100, 300, 600])))
        out[f"script-{i}"] = bytes([i, *steps])
    return out


def main() -> None:
    """Write the seeds of fuzz_decode and fuzz_live into the folders `decode` and `live` of the one given."""
    for target, seeds in (("decode", decoder_seeds()), ("live", live_seeds())):
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
