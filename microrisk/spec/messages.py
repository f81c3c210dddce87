"""Wire layouts, written once: ITCH 5.0 (23 messages), MoldUDP64 1.00, DBN version 1-3 `mbo` and `mbp-1`.

The naive decoder, the encoder, the golden bytes and the generated C++ header all read these tables.
Sources: Nasdaq TotalView-ITCH 5.0 specification, sections 1.1-1.9 (section in each row); Nasdaq MoldUDP64 1.00;
Databento DBN encoding, `mbo` and `mbp-1` schemas.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes
    ----------
    name : the name every language uses
    offset, size : bytes from the start of the message
    kind : "u" unsigned, "i" signed, "a" ASCII left-justified and space padded, "c" one ASCII code
    unit : "1", "shares", "px4" (1e-4 dollars), "px8", "px9" (1e-9), "ns" (since midnight or epoch), "s", "locate", "ref", "code"
    doc : meaning, or the allowed codes
    """

    name: str
    offset: int
    size: int
    kind: str
    unit: str
    doc: str


@dataclass(frozen=True)
class Message:
    """One message type: its code, name, total length in bytes, section of the standard, and fields in wire order."""

    code: str
    name: str
    length: int
    section: str
    fields: tuple[Field, ...]

    def __getitem__(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(name)


def _fields(text: str) -> tuple[Field, ...]:
    """Rows `name size kind unit doc`, offsets by adding up sizes."""
    out, offset = [], 0
    for line in filter(None, text.splitlines()):
        name, size, kind, unit, doc = line.split(None, 4)
        out.append(Field(name, offset, int(size), kind, unit, doc))
        offset += int(size)
    return tuple(out)


_HEADER = """
type 1 c code message type
locate 2 u locate stock locate, an index valid for the day; 0 for messages about no stock
tracking 2 u 1 Nasdaq internal tracking number
timestamp 6 u ns since midnight, US Eastern
"""

_STOCK = "stock 8 a 1 symbol\n"
_ADD = """
ref 8 u ref order reference, unique for the day
side 1 c code B buy, S sell
shares 4 u shares displayed size
stock 8 a 1 symbol
price 4 u px4 display price
"""


def _itch(code: str, name: str, section: str, body: str) -> Message:
    fields = _fields(_HEADER + body)
    return Message(code, name, fields[-1].offset + fields[-1].size, section, fields)


ITCH: tuple[Message, ...] = (
    _itch(
        "S",
        "system_event",
        "1.1",
        "event 1 c code O start of messages, S start of system hours, Q start of market hours, M end of market hours, E end of system hours, C end of messages",
    ),
    _itch(
        "R",
        "stock_directory",
        "1.2.1",
        _STOCK
        + """
market_category 1 c code Q N A P Z V or space
financial_status 1 c code D E Q S G H J K C N or space
round_lot_size 4 u shares size of a round lot
round_lots_only 1 c code Y or N
issue_classification 1 a 1 one letter
issue_subtype 2 a 1 two letters
authenticity 1 c code P live, T test
short_sale_threshold 1 c code Y N or space
ipo_flag 1 c code Y N or space
luld_tier 1 c code 1 2 or space
etp_flag 1 c code Y N or space
etp_leverage 4 u 1 leverage factor
inverse 1 c code Y or N
""",
    ),
    _itch(
        "H",
        "trading_action",
        "1.2.2",
        _STOCK
        + "state 1 c code H halted, P paused, Q quotation only, T trading\nreserved 1 a 1 reserved\nreason 4 a 1 reason code",
    ),
    _itch("Y", "reg_sho", "1.2.3", _STOCK + "action 1 c code 0 none, 1 in effect, 2 remains in effect"),
    _itch(
        "L",
        "participant_position",
        "1.2.4",
        "mpid 4 a 1 market participant\n"
        + _STOCK
        + "primary_mm 1 c code Y or N\nmm_mode 1 c code N P S R L\nparticipant_state 1 c code A E W S D",
    ),
    _itch(
        "V",
        "mwcb_decline_level",
        "1.2.5.1",
        "level1 8 u px8 first breaker level\nlevel2 8 u px8 second breaker level\nlevel3 8 u px8 third breaker level",
    ),
    _itch("W", "mwcb_status", "1.2.5.2", "breached 1 c code 1 2 or 3"),
    _itch(
        "K",
        "ipo_quoting_period",
        "1.2.6",
        _STOCK
        + "release_time 4 u s since midnight\nqualifier 1 c code A anticipated, C cancelled\nipo_price 4 u px4 price of the first sale",
    ),
    _itch(
        "J",
        "luld_collar",
        "1.2.7",
        _STOCK
        + "reference 4 u px4 auction collar reference\nupper 4 u px4 upper collar\nlower 4 u px4 lower collar\nextension 4 u 1 number of extensions",
    ),
    _itch("h", "operational_halt", "1.2.8", _STOCK + "market 1 c code Q B or X\naction 1 c code H halted, T resumed"),
    _itch("A", "add_order", "1.3.1", _ADD),
    _itch("F", "add_order_mpid", "1.3.2", _ADD + "mpid 4 a 1 attribution"),
    _itch(
        "E",
        "order_executed",
        "1.4.1",
        "ref 8 u ref order reference\nshares 4 u shares executed\nmatch 8 u ref match number",
    ),
    _itch(
        "C",
        "order_executed_price",
        "1.4.2",
        "ref 8 u ref order reference\nshares 4 u shares executed\nmatch 8 u ref match number\nprintable 1 c code Y or N\nprice 4 u px4 execution price",
    ),
    _itch("X", "order_cancel", "1.4.3", "ref 8 u ref order reference\nshares 4 u shares taken off the order"),
    _itch("D", "order_delete", "1.4.4", "ref 8 u ref order reference"),
    _itch(
        "U",
        "order_replace",
        "1.4.5",
        "ref 8 u ref order that goes\nnew_ref 8 u ref order that comes\nshares 4 u shares new size\nprice 4 u px4 new price",
    ),
    _itch("P", "trade", "1.5.1", _ADD + "match 8 u ref match number"),
    _itch(
        "Q",
        "cross_trade",
        "1.5.2",
        "shares 8 u shares matched in the cross\n"
        + _STOCK
        + "price 4 u px4 cross price\nmatch 8 u ref match number\ncross_type 1 c code O opening, C closing, H halt or IPO, I intraday",
    ),
    _itch("B", "broken_trade", "1.5.3", "match 8 u ref match number"),
    _itch(
        "I",
        "noii",
        "1.6",
        "paired 8 u shares matched at the reference price\nimbalance 8 u shares not paired\ndirection 1 c code B S N O P\n"
        + _STOCK
        + "far 4 u px4 far indicative price\nnear 4 u px4 near indicative price\nreference 4 u px4 current reference price\ncross_type 1 c code O C H A\nvariation 1 c code price variation indicator",
    ),
    _itch("N", "retail_interest", "1.7", _STOCK + "interest 1 c code B S A N"),
    _itch(
        "O",
        "direct_listing",
        "1.8",
        _STOCK
        + "open_eligible 1 c code Y or N\nmin_price 4 u px4 20 % below the registration low\nmax_price 4 u px4 80 % above the registration high\nnear_price 4 u px4 indicative price\nnear_time 8 u ns since midnight\nlower_collar 4 u px4 lower auction collar\nupper_collar 4 u px4 upper auction collar",
    ),
)
ITCH_BY_CODE = {m.code: m for m in ITCH}
ITCH_BOOK_CODES = "AFECXDU"
"""The only types that change a displayed book."""

MOLD_HEADER = Message(
    "",
    "moldudp64_header",
    20,
    "MoldUDP64 1.00, downstream packet",
    _fields(
        """
session 10 a 1 session; a change restarts the sequence at 1
sequence 8 u 1 number of the first message in the packet
count 2 u 1 messages in the packet; 0 heartbeat, 65535 end of session
"""
    ),
)
MOLD_HEARTBEAT, MOLD_END_OF_SESSION = 0, 0xFFFF

DBN_MBO = Message(
    "\xa0",
    "mbo",
    56,
    "DBN schema mbo, rtype 0xA0, little-endian",
    _fields(
        """
length 1 u 1 record length in 4-byte words (14)
rtype 1 u code 160
publisher_id 2 u 1 venue and dataset
instrument_id 4 u 1 numeric instrument
ts_event 8 u ns since the epoch, UTC, venue
order_id 8 u ref order
price 8 i px9 INT64_MAX = undefined
size 4 u 1 contracts
flags 1 u code LAST 128, TOB 64, SNAPSHOT 32, MBP 16, BAD_TS_RECV 8, MAYBE_BAD_BOOK 4, PUBLISHER_SPECIFIC 2
channel_id 1 u 1 channel
action 1 c code A add, C cancel, M modify, R clear, T trade, F fill, N none
side 1 c code B bid, A ask, N none; of a trade, the aggressor
ts_recv 8 u ns since the epoch, UTC, recorder
ts_in_delta 4 i ns ts_recv minus the venue's sending time
sequence 4 u 1 venue sequence number
"""
    ),
)
DBN_MBP1 = Message(
    "\x01",
    "mbp1",
    80,
    "DBN schema mbp-1, rtype 0x01, little-endian",
    _fields(
        """
length 1 u 1 record length in 4-byte words (20)
rtype 1 u code 1
publisher_id 2 u 1 venue and dataset
instrument_id 4 u 1 numeric instrument
ts_event 8 u ns since the epoch, UTC, venue
price 8 i px9 of the update or trade; INT64_MAX = undefined
size 4 u 1 of the update or trade
action 1 c code A add, C cancel, M modify, R clear, T trade, N none
side 1 c code B bid, A ask, N none; of a trade, the aggressor
flags 1 u code as in mbo
depth 1 u 1 0-based level of the update
ts_recv 8 u ns since the epoch, UTC, recorder
ts_in_delta 4 i ns ts_recv minus the venue's sending time
sequence 4 u 1 venue sequence number
bid_px 8 i px9 best bid after the update; INT64_MAX = none
ask_px 8 i px9 best ask after the update; INT64_MAX = none
bid_sz 4 u 1 size at the best bid
ask_sz 4 u 1 size at the best ask
bid_ct 4 u 1 orders at the best bid
ask_ct 4 u 1 orders at the best ask
"""
    ),
)
DBN_LAST, DBN_TOB, DBN_SNAPSHOT, DBN_MBP, DBN_BAD_TS_RECV, DBN_MAYBE_BAD_BOOK = 128, 64, 32, 16, 8, 4
DBN_UNDEF_PX = 2**63 - 1
