"""Wire layouts of IEX, written once: IEX-TP 1.25 segments, and the messages of TOPS 1.6, DEEP 1.0 and DEEP+ 1.0.

Little-endian; times are signed ns since the epoch, UTC; prices are signed, in 1e-4 dollars; symbols are eight
characters, left-justified and space padded. A message may grow at its end without notice, so `length` is the least.
Sources: IEX Transport Protocol specification 1.25; IEX TOPS specification 1.66; IEX DEEP specification 1.08; IEX DEEP+
specification 1.02. Sections are named as there.
"""

from __future__ import annotations

from dataclasses import dataclass

from microrisk.spec.messages import Field, Message

TOPS, DEEP, DEEP_PLUS = 0x8003, 0x8004, 0x8005
PROTOCOLS = {TOPS: "TOPS 1.6", DEEP: "DEEP 1.0", DEEP_PLUS: "DEEP+ 1.0"}
"""Message protocol id of a segment -> name."""


def _message(code: str, name: str, section: str, rows: str) -> Message:
    """From rows `name size kind unit doc`; offsets by adding up sizes."""
    fields, offset = [], 0
    for line in filter(None, rows.splitlines()):
        field, size, kind, unit, doc = line.split(None, 4)
        fields.append(Field(field, offset, int(size), kind, unit, doc))
        offset += int(size)
    return Message(code, name, offset, section, tuple(fields))


SEGMENT = _message(
    "",
    "segment",
    "IEX-TP: Outbound Segment Header",
    """
version 1 u 1 of the transport: 1
reserved 1 u 1 reserved
protocol 2 u code message protocol: 0x8003 TOPS 1.6, 0x8004 DEEP 1.0, 0x8005 DEEP+ 1.0
channel 4 u 1 stream of bytes
session 4 u 1 session; a new one begins at sequence 1
payload 2 u 1 bytes behind the header
count 2 u 1 messages behind the header; 0 heartbeat
stream_offset 8 i 1 bytes of payload sent before, in this session
first 8 i 1 sequence of the first message, in a heartbeat of the next one
send_time 8 i ns since the epoch
""",
)
SEGMENT_VERSION = 1


@dataclass(frozen=True)
class IexMessage:
    """A message and the protocols that carry it."""

    layout: Message
    protocols: tuple[int, ...]


_ALL, _LEVELS, _OLD = (TOPS, DEEP, DEEP_PLUS), (DEEP, DEEP_PLUS), (TOPS, DEEP)


def _row(code: str, name: str, protocols: tuple[int, ...], section: str, first: str, rest: str) -> IexMessage:
    """A message about a security: its code, one byte of its own (`first`), time, symbol, and the rest."""
    head = f"type 1 c code message type\n{first}\ntimestamp 8 i ns since the epoch\nsymbol 8 a 1 security\n"
    return IexMessage(_message(code, name, section, head + rest), protocols)


_TRADE = "size 4 u shares volume\nprice 8 i px4 price\ntrade_id 8 i ref unique for the day"
_SALE = "flags 1 u code 128 sweep, 64 extended hours, 32 odd lot, 16 trade-through exempt, 8 single-price cross"
SALE_CROSS = 0x08
_RESERVED = "reserved 1 u 1 reserved"

IEX: tuple[IexMessage, ...] = (
    IexMessage(
        _message(
            "S",
            "system_event",
            "Administrative: System Event",
            """
type 1 c code message type
event 1 c code messages O start, C end; system hours S start, E end; regular hours R start, M end
timestamp 8 i ns since the epoch
""",
        ),
        _ALL,
    ),
    _row(
        "D",
        "security_directory",
        _ALL,
        "Administrative: Security Directory",
        "flags 1 u code 128 test security, 64 when issued, 32 exchange traded product",
        """round_lot 4 u shares size of a round lot
adjusted_close 8 i px4 previous official close, adjusted
luld_tier 1 u code 0 none, 1, 2""",
    ),
    _row(
        "H",
        "trading_status",
        _ALL,
        "Administrative: Trading Status",
        "status 1 c code H halted, P paused (orders accepted), O released to accept orders, T trading",
        "reason 4 a 1 reason code",
    ),
    _row(
        "I",
        "retail_interest",
        _ALL,
        "Administrative: Retail Liquidity Indicator",
        "interest 1 c code space none, A buy, B sell, C both",
        "",
    ),
    _row(
        "O",
        "operational_halt",
        _ALL,
        "Administrative: Operational Halt Status",
        "status 1 c code O halted on IEX, N not halted",
        "",
    ),
    _row(
        "P",
        "short_sale_test",
        _ALL,
        "Administrative: Short Sale Price Test Status",
        "status 1 u code 0 not in effect, 1 in effect",
        "detail 1 c code space none, A activated, C continued, D deactivated, N not available",
    ),
    _row(
        "E",
        "security_event",
        _LEVELS,
        "Administrative: Security Event",
        "event 1 c code O opening process complete, C closing process complete",
        "",
    ),
    _row(
        "Q",
        "quote_update",
        (TOPS,),
        "Trading: Quote Update",
        "flags 1 u code 128 security not active, 64 outside regular hours",
        """bid_size 4 u shares size at the best bid; 0 no bid
bid_price 8 i px4 best bid
ask_price 8 i px4 best ask
ask_size 4 u shares size at the best ask; 0 no ask""",
    ),
    _row(
        "8",
        "price_level_buy",
        (DEEP,),
        "Trading: Price Level Update",
        "flags 1 u code 1 event complete; 0 the book is in transition",
        "size 4 u shares total at the price; 0 removes the level\nprice 8 i px4 price of the level",
    ),
    _row(
        "5",
        "price_level_sell",
        (DEEP,),
        "Trading: Price Level Update",
        "flags 1 u code 1 event complete; 0 the book is in transition",
        "size 4 u shares total at the price; 0 removes the level\nprice 8 i px4 price of the level",
    ),
    _row("T", "trade", _ALL, "Trading: Trade Report", _SALE, _TRADE),
    _row("B", "trade_break", _ALL, "Trading: Trade Break", _SALE, _TRADE),
    _row(
        "X",
        "official_price",
        _OLD,
        "Trading: Official Price",
        "kind 1 c code Q opening, M closing",
        "price 8 i px4 official price",
    ),
    _row(
        "A",
        "auction_information",
        _OLD,
        "Auction: Auction Information",
        "auction 1 c code O opening, C closing, I initial offering, H halt, V volatility",
        """paired 4 u shares matched at the reference price
reference 8 i px4 reference price
indicative 8 i px4 indicative clearing price
imbalance 4 u shares not paired
imbalance_side 1 c code B, S, N
extension 1 u 1 number of extensions
scheduled 4 u s of the match, since the epoch
clearing 8 i px4 clearing price of eligible auction orders
collar 8 i px4 reference of the collar
lower 8 i px4 lower collar
upper 8 i px4 upper collar""",
    ),
    _row(
        "a",
        "add_order",
        (DEEP_PLUS,),
        "Trading: Add Order",
        "side 1 c code 8 buy, 5 sell",
        "order_id 8 u ref unique for the day\nsize 4 u shares displayed\nprice 8 i px4 booked at",
    ),
    _row(
        "M",
        "order_modify",
        (DEEP_PLUS,),
        "Trading: Order Modify",
        "flags 1 u code 1 priority maintained; 0 reset",
        "order_id 8 u ref order\nsize 4 u shares new total\nprice 8 i px4 booked at",
    ),
    _row("R", "order_delete", (DEEP_PLUS,), "Trading: Order Delete", _RESERVED, "order_id 8 u ref order"),
    _row(
        "L",
        "order_executed",
        (DEEP_PLUS,),
        "Trading: Order Executed",
        _SALE,
        "order_id 8 u ref order\n" + _TRADE,
    ),
    _row("C", "clear_book", (DEEP_PLUS,), "Trading: Clear Book", _RESERVED, ""),
)


def by_code(protocol: int) -> dict[str, Message]:
    """Type code -> layout, of one protocol."""
    return {m.layout.code: m.layout for m in IEX if protocol in m.protocols}
