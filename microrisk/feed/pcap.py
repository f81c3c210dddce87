"""Capture files: pcap and pcapng to UDP datagrams and back, with Ethernet (VLAN too), Linux cooked and raw IPv4 links.

Reads bytes that are already in memory (any buffer); yields memoryviews into them, no copies. Byte order, and
micro- or nanosecond stamps, come from the file's own header. A packet of which the capture holds only a part (snap
length, or the end of a file that breaks off) is handed on with what is there: whole messages in it still count.
This is the naive twin of the C++ reader (`MoldCapture`, `IexCapture`), which the feeds use. Sources: the pcap and
pcapng formats (IETF opsawg drafts), RFC 791 (IPv4), RFC 768 (UDP), IEEE 802.1Q.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from microrisk.errors import FeedError

NS = 1_000_000_000
MAGIC_US, MAGIC_NS = 0xA1B2C3D4, 0xA1B23C4D
NG_SECTION, NG_INTERFACE, NG_PACKET, NG_SIMPLE, NG_ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
NG_BYTE_ORDER = 0x1A2B3C4D
OPT_TSRESOL, OPT_TSOFFSET = 9, 14
LINK_ETHERNET, LINK_RAW, LINK_SLL, LINK_IPV4, LINK_SLL2 = 1, 101, 113, 228, 276
_RAW_LINKS = (LINK_RAW, LINK_IPV4, 12, 14)
_ETHERTYPE_IPV4, _VLAN = 0x0800, (0x8100, 0x88A8, 0x9100)
_PROTO_UDP = 17


@dataclass
class CaptureCounters:
    """What the reader met besides UDP datagrams.

    Attributes
    ----------
    packets : packets in the capture, a broken last one too when its record header is there
    datagrams : UDP datagrams handed on, cut ones too
    other : packets that are not IPv4 UDP, or of a link type that is not known
    fragments : IPv4 fragments (they are not put together)
    cut : packets shorter than their own headers say (a capture with a snap length), without the broken last one
    truncated_at : byte offset of a last record that the file does not hold whole, or -1
    """

    packets: int = 0
    datagrams: int = 0
    other: int = 0
    fragments: int = 0
    cut: int = 0
    truncated_at: int = -1


class Packet(NamedTuple):
    """One captured packet: receive time in ns UTC (0: not known), link type, bytes as captured.

    `broken`: the file ends inside its record.
    """

    ts: int
    link: int
    data: memoryview
    broken: bool = False


class Datagram(NamedTuple):
    """One UDP datagram: receive time in ns UTC (0: not known), destination address and port as on the wire, payload.

    `cut`: the capture holds only the beginning of the payload.
    """

    ts: int
    dst: int
    port: int
    payload: memoryview
    cut: bool = False


def is_capture(head: bytes) -> bool:
    """Whether a file that begins with these (4 or more) bytes is pcap or pcapng."""
    if len(head) < 4:
        return False
    little, big = struct.unpack("<I", head[:4])[0], struct.unpack(">I", head[:4])[0]
    return bool({little, big} & {MAGIC_US, MAGIC_NS}) or big == NG_SECTION


def iter_packets(data: bytes | memoryview, counters: CaptureCounters | None = None) -> Iterator[Packet]:
    """Every packet of a pcap or pcapng buffer in file order.

    A last record that is not whole is counted and ends the reading; what there is of its packet comes as `broken`.
    Raises FeedError when it is no capture at all.
    """
    view = memoryview(data).cast("B")
    found = counters or CaptureCounters()
    if not is_capture(bytes(view[:4])):
        raise FeedError(f"not a pcap or pcapng capture: begins with {bytes(view[:4]).hex() or 'nothing'}", offset=0)
    reader = _iter_ng if bytes(view[:4]) == b"\x0a\x0d\x0d\x0a" else _iter_classic
    for packet in reader(view, found):
        found.packets += 1
        yield packet


def _iter_classic(view: memoryview, found: CaptureCounters) -> Iterator[Packet]:
    if len(view) < 24:
        raise FeedError(f"pcap header of 24 bytes cut at {len(view)}", offset=0)
    order = "<" if struct.unpack_from("<I", view)[0] in (MAGIC_US, MAGIC_NS) else ">"
    unit = 1 if struct.unpack_from(order + "I", view)[0] == MAGIC_NS else 1000
    link = struct.unpack_from(order + "I", view, 20)[0] & 0x0FFFFFFF
    head, offset = struct.Struct(order + "IIII"), 24
    while offset < len(view):
        if offset + 16 > len(view):
            found.truncated_at = offset
            return
        sec, frac, size, _ = head.unpack_from(view, offset)
        end = offset + 16 + size
        if end > len(view):
            found.truncated_at = offset
        yield Packet(sec * NS + frac * unit, link, view[offset + 16 : end], end > len(view))
        offset = end


@dataclass(frozen=True)
class _Interface:
    """pcapng interface: link type and clock. A stamp t is t * NS // ticks + offset, in ns."""

    link: int
    ticks: int
    offset: int

    def ns(self, high: int, low: int) -> int:
        """UTC ns; 0 (not known) for a time that 64 bits cannot hold."""
        ns = (high << 32 | low) * NS // self.ticks + self.offset
        return ns if -(1 << 63) < ns < 1 << 63 else 0


def _interface(body: memoryview, order: str) -> _Interface:
    """From an interface description block's body: link type u16, reserved u16, snap length u32, options."""
    ticks, shift, offset = 1_000_000, 0, 8
    while offset + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, offset)
        value = bytes(body[offset + 4 : offset + 4 + size])
        if code == 0:
            break
        if code == OPT_TSRESOL and size == len(value) == 1:
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == OPT_TSOFFSET and size == len(value) == 8:
            shift = struct.unpack(order + "q", value)[0] * NS
        offset += 4 + (size + 3 & ~3)
    return _Interface(struct.unpack_from(order + "H", body)[0], ticks, shift)


def _iter_ng(view: memoryview, found: CaptureCounters) -> Iterator[Packet]:
    order, offset = "<", 0
    interfaces: list[_Interface] = []
    while offset < len(view):
        head = bytes(view[offset : offset + 12])
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if head[8:12] == struct.pack("<I", NG_BYTE_ORDER) else ">"
            interfaces = []
        kind, size = struct.unpack(order + "II", head[:8]) if len(head) >= 8 else (0, 0)
        framed = size >= 12 and size % 4 == 0
        if not framed or offset + size > len(view):
            found.truncated_at = offset
        if not framed:
            return
        body = view[offset + 8 : offset + size - 4]
        offset += size
        if kind == NG_INTERFACE and len(body) >= 8:
            interfaces.append(_interface(body, order))
            continue
        packet = _ng_packet(kind, body, order, interfaces)
        if packet is not None:
            yield packet._replace(broken=offset > len(view))


def _ng_packet(kind: int, body: memoryview, order: str, interfaces: list[_Interface]) -> Packet | None:
    """The packet of an enhanced, simple or (obsolete) packet block; None for other blocks or an unknown interface."""
    if kind == NG_ENHANCED and len(body) >= 20:
        index, high, low, size, _ = struct.unpack_from(order + "IIIII", body)
    elif kind == NG_PACKET and len(body) >= 20:
        index, _, high, low, size, _ = struct.unpack_from(order + "HHIIII", body)
    elif kind == NG_SIMPLE and len(body) >= 4 and interfaces:
        return Packet(0, interfaces[0].link, body[4 : 4 + struct.unpack_from(order + "I", body)[0]])
    else:
        return None
    if index >= len(interfaces):
        return None
    return Packet(interfaces[index].ns(high, low), interfaces[index].link, body[20 : 20 + size])


def _network_offset(link: int, data: memoryview) -> int:
    """Offset of the IPv4 header, or -1 when the packet carries none that this reader knows."""
    if link in _RAW_LINKS:
        return 0
    if link == LINK_SLL2:
        return 20 if len(data) >= 20 and data[0] << 8 | data[1] == _ETHERTYPE_IPV4 else -1
    place = {LINK_ETHERNET: 12, LINK_SLL: 14}.get(link, -1)
    if place < 0:
        return -1
    while place + 2 <= len(data):
        kind = data[place] << 8 | data[place + 1]
        if kind == _ETHERTYPE_IPV4:
            return place + 2
        if kind not in _VLAN:
            return -1
        place += 4
    return -1


_UDP = struct.Struct(">HHHH")


def udp_of(packet: Packet, counters: CaptureCounters) -> Datagram | None:
    """The UDP datagram of a packet, or None (and a counter says why). Padding behind the datagram is left out."""
    data = packet.data
    start = _network_offset(packet.link, data)
    if start < 0 or len(data) < start + 20 or data[start] >> 4 != 4 or data[start + 9] != _PROTO_UDP:
        counters.other += not packet.broken
        return None
    if (data[start + 6] << 8 | data[start + 7]) & 0x3FFF:
        counters.fragments += 1
        return None
    udp = start + (data[start] & 15) * 4
    if udp + 8 > len(data):
        counters.cut += not packet.broken
        return None
    _, port, length, _ = _UDP.unpack_from(data, udp)
    cut = udp + length > len(data)
    counters.cut += (cut or length < 8) and not packet.broken
    if length < 8:
        return None
    counters.datagrams += 1
    dst = int.from_bytes(data[start + 16 : start + 20], "big")
    return Datagram(packet.ts, dst, port, data[udp + 8 : udp + length], cut)


def iter_udp(data: bytes | memoryview, counters: CaptureCounters | None = None) -> Iterator[Datagram]:
    """Every IPv4 UDP datagram of a capture in file order; raises FeedError as iter_packets."""
    found = counters if counters is not None else CaptureCounters()
    for packet in iter_packets(data, found):
        datagram = udp_of(packet, found)
        if datagram is not None:
            yield datagram


def ip_checksum(header: bytes) -> int:
    """Ones' complement of the ones' complement sum of 16-bit words (RFC 791), for a header whose own field is zero."""
    total = sum(header[0::2]) * 256 + sum(header[1::2])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Endpoint:
    """Addresses of written packets; defaults are a multicast group and a source that exist nowhere."""

    src: int = 0xC0000201  # 192.0.2.1 (documentation range, RFC 5737)
    dst: int = 0xE9360C6F  # 233.54.12.111
    src_port: int = 26000
    port: int = 26477

    def frame(self, payload: bytes, ident: int = 0) -> bytes:
        """Ethernet, IPv4 and UDP headers around a payload. UDP checksum 0: not used (legal on IPv4)."""
        if len(payload) > 65507:
            raise FeedError(f"UDP payload of {len(payload)} bytes, at most 65507")
        head = struct.pack(
            ">BBHHHBBHII", 0x45, 0, 28 + len(payload), ident & 0xFFFF, 0x4000, 16, 17, 0, self.src, self.dst
        )
        head = head[:10] + struct.pack(">H", ip_checksum(head)) + head[12:]
        mac = b"\x01\x00\x5e" + struct.pack(">I", self.dst & 0x7FFFFF)[1:]
        ethernet = mac + b"\x02\x00\x00\x00\x00\x01" + b"\x08\x00"
        return ethernet + head + _UDP.pack(self.src_port, self.port, 8 + len(payload), 0) + payload


def pcap_header(link: int = LINK_ETHERNET) -> bytes:
    """Header of a little-endian capture with nanosecond stamps."""
    return struct.pack("<IHHiIII", MAGIC_NS, 2, 4, 0, 0, 262144, link)


def pcap_record(ts: int, frame: bytes) -> bytes:
    """One record of that capture; `ts` in ns since the epoch, 0 to 2**32 s."""
    if not 0 <= ts < NS << 32:
        raise FeedError(f"capture time {ts} ns does not fit 32 bits of seconds")
    return struct.pack("<IIII", ts // NS, ts % NS, len(frame), len(frame)) + frame
