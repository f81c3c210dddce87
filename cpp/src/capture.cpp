#include "microrisk/capture.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "bytes.hpp"

namespace microrisk {

namespace {

constexpr std::uint32_t MAGIC_US = 0xA1B2C3D4, MAGIC_NS = 0xA1B23C4D;
constexpr std::uint32_t NG_SECTION = 0x0A0D0D0A, NG_BYTE_ORDER = 0x1A2B3C4D;
constexpr std::uint32_t NG_INTERFACE = 1, NG_PACKET = 2, NG_SIMPLE = 3, NG_ENHANCED = 6;
constexpr std::uint32_t OPT_TSRESOL = 9, OPT_TSOFFSET = 14;
constexpr std::uint32_t LINK_ETHERNET = 1, LINK_SLL = 113, LINK_SLL2 = 276;
constexpr std::size_t CLASSIC_HEADER = 24, RECORD_HEADER = 16;

bool is_raw(std::uint32_t link) noexcept {
  return link == 101 || link == 228 || link == 12 || link == 14;
}

bool is_vlan(std::uint64_t ethertype) noexcept {
  return ethertype == 0x8100 || ethertype == 0x88A8 || ethertype == 0x9100;
}

constexpr std::size_t NO_IP = SIZE_MAX;

// Offset of the IPv4 header; NO_IP when the packet carries none that is known here.
std::size_t network_offset(std::uint32_t link, const std::uint8_t* data, std::size_t size) noexcept {
  constexpr std::uint64_t IPV4 = 0x0800;
  if (is_raw(link)) return 0;
  if (link == LINK_SLL2) return size >= 20 && be<2>(data) == IPV4 ? 20 : NO_IP;
  if (link != LINK_ETHERNET && link != LINK_SLL) return NO_IP;
  for (std::size_t place = link == LINK_SLL ? 14 : 12; place + 2 <= size; place += 4) {
    const std::uint64_t kind = be<2>(data + place);
    if (kind == IPV4) return place + 2;
    if (!is_vlan(kind)) return NO_IP;
  }
  return NO_IP;
}

// Ticks of a second from the option's byte: a power of ten, or of two with the highest bit set. Finer clocks than 128
// bits can count read as 0 ns, as they do in arithmetic without a limit.
unsigned __int128 ticks_of(std::uint8_t resolution) noexcept {
  const unsigned exponent = resolution & 0x7F;
  if ((resolution & 0x80) != 0) return static_cast<unsigned __int128>(1) << exponent;
  unsigned __int128 ticks = 1;
  for (unsigned i = 0; i < exponent; ++i) {
    if (ticks > ~static_cast<unsigned __int128>(0) / 10) return ~static_cast<unsigned __int128>(0);
    ticks *= 10;
  }
  return ticks;
}

std::string hex(const std::uint8_t* data, std::size_t size) {
  constexpr char DIGITS[] = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < size; ++i) out.append({DIGITS[data[i] >> 4], DIGITS[data[i] & 15]});
  return out.empty() ? "nothing" : out;
}

}  // namespace

// ---- capture files -------------------------------------------------------------------------------------------------

Capture::Capture(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {
  std::uint32_t magic = 0;
  if (size >= 4) magic = static_cast<std::uint32_t>(le<4>(data));
  const std::uint32_t turned = __builtin_bswap32(magic);
  blocks_ = magic == NG_SECTION;
  const bool ours = magic == MAGIC_US || magic == MAGIC_NS;
  if (size < 4 || (!blocks_ && !ours && turned != MAGIC_US && turned != MAGIC_NS)) {
    throw std::invalid_argument("not a pcap or pcapng capture: begins with " +
                                hex(data, std::min<std::size_t>(size, 4)));
  }
  if (blocks_) return;
  if (size < CLASSIC_HEADER) throw std::invalid_argument("pcap header of 24 bytes cut at " + std::to_string(size));
  swap_ = !ours;
  unit_ = u32(data) == MAGIC_NS ? 1 : 1000;
  link_ = u32(data + 20) & 0x0FFFFFFF;
  offset_ = CLASSIC_HEADER;
}

std::uint16_t Capture::u16(const std::uint8_t* p) const noexcept {
  return static_cast<std::uint16_t>(swap_ ? be<2>(p) : le<2>(p));
}

std::uint32_t Capture::u32(const std::uint8_t* p) const noexcept {
  return static_cast<std::uint32_t>(swap_ ? be<4>(p) : le<4>(p));
}

bool Capture::truncate() noexcept {
  counts.truncated_at = static_cast<std::int64_t>(offset_);
  offset_ = size_;
  return false;
}

bool Capture::next(Datagram& out) {
  Packet packet{};
  while (blocks_ ? next_block(packet) : next_classic(packet)) {
    ++counts.packets;
    if (udp_of(packet, out)) return true;
  }
  return false;
}

bool Capture::next_classic(Packet& out) noexcept {
  if (offset_ == size_) return false;
  if (size_ - offset_ < RECORD_HEADER) return truncate();
  const std::uint8_t* head = data_ + offset_;
  const std::size_t there = size_ - offset_ - RECORD_HEADER, size = u32(head + 8);
  out = Packet{u32(head) * NS_PER_S + u32(head + 4) * unit_, head + RECORD_HEADER, std::min(size, there), link_,
               size > there};
  if (out.broken) {
    (void)truncate();
  } else {
    offset_ += RECORD_HEADER + size;
  }
  return true;
}

bool Capture::next_block(Packet& out) {
  while (offset_ < size_) {
    const std::uint8_t* head = data_ + offset_;
    const std::size_t there = size_ - offset_;
    if (there >= 4 && le<4>(head) == NG_SECTION) {
      swap_ = there < 12 || le<4>(head + 8) != NG_BYTE_ORDER;
      interfaces_.clear();
    }
    if (there < 8) return truncate();
    const std::uint32_t kind = u32(head);
    const std::size_t size = u32(head + 4);
    if (size < 12 || size % 4 != 0) return truncate();
    const bool broken = size > there;
    const std::size_t body = std::min(size - 12, there - 8);
    if (broken) {
      (void)truncate();
    } else {
      offset_ += size;
    }
    if (kind == NG_INTERFACE && body >= 8) {
      interfaces_.push_back(interface_of(head + 8, body));
    } else if (packet_of(kind, head + 8, body, out)) {
      out.broken = broken;
      return true;
    }
  }
  return false;
}

// From an interface description: link type u16, reserved u16, snap length u32, options.
Capture::Interface Capture::interface_of(const std::uint8_t* body, std::size_t size) const noexcept {
  Interface out{1'000'000, 0, u16(body)};
  for (std::size_t at = 8; at + 4 <= size;) {
    const std::uint32_t code = u16(body + at), length = u16(body + at + 2);
    const std::size_t there = size - at - 4;
    if (code == 0) break;
    if (code == OPT_TSRESOL && length == 1 && there >= 1) out.ticks = ticks_of(body[at + 4]);
    if (code == OPT_TSOFFSET && length == 8 && there >= 8) {
      const std::uint64_t seconds = swap_ ? be<8>(body + at + 4) : le<8>(body + at + 4);
      out.shift = static_cast<__int128>(static_cast<std::int64_t>(seconds)) * NS_PER_S;
    }
    at += 4 + ((length + std::size_t{3}) & ~std::size_t{3});
  }
  return out;
}

// 0 (not known) for a time that 64 bits cannot hold.
std::int64_t Capture::Interface::ns(std::uint32_t high, std::uint32_t low) const noexcept {
  const unsigned __int128 stamp = static_cast<std::uint64_t>(high) << 32 | low;
  const __int128 at = static_cast<__int128>(stamp * static_cast<std::uint64_t>(NS_PER_S) / ticks) + shift;
  return at > INT64_MIN && at <= INT64_MAX ? static_cast<std::int64_t>(at) : 0;
}

// The packet of an enhanced, simple or (obsolete) packet block; false for other blocks or an unknown interface.
bool Capture::packet_of(std::uint32_t kind, const std::uint8_t* body, std::size_t size, Packet& out) const noexcept {
  if (kind == NG_SIMPLE && size >= 4 && !interfaces_.empty()) {
    out = Packet{0, body + 4, std::min<std::size_t>(u32(body), size - 4), interfaces_[0].link, false};
    return true;
  }
  if ((kind != NG_ENHANCED && kind != NG_PACKET) || size < 20) return false;
  const std::uint32_t index = kind == NG_ENHANCED ? u32(body) : u16(body);
  if (index >= interfaces_.size()) return false;
  const Interface& from = interfaces_[index];
  out = Packet{from.ns(u32(body + 4), u32(body + 8)), body + 20, std::min<std::size_t>(u32(body + 12), size - 20),
               from.link, false};
  return true;
}

bool Capture::udp_of(const Packet& packet, Datagram& out) noexcept {
  const std::uint8_t* p = packet.data;
  const std::size_t start = network_offset(packet.link, p, packet.size);
  if (start == NO_IP || packet.size < start + 20 || p[start] >> 4 != 4 || p[start + 9] != 17) {
    counts.other += !packet.broken;
    return false;
  }
  if ((be<2>(p + start + 6) & 0x3FFF) != 0) {
    ++counts.fragments;
    return false;
  }
  const std::size_t udp = start + (p[start] & 15U) * 4;
  if (udp + 8 > packet.size) {
    counts.cut += !packet.broken;
    return false;
  }
  const std::size_t length = be<2>(p + udp + 4), there = packet.size - udp;
  const bool cut = length > there;
  counts.cut += (cut || length < 8) && !packet.broken;
  if (length < 8) return false;
  ++counts.datagrams;
  out = Datagram{packet.ts,
                 p + udp + 8,
                 std::min(length, there) - 8,
                 static_cast<std::uint32_t>(be<4>(p + start + 16)),
                 static_cast<std::uint16_t>(be<2>(p + udp + 2)),
                 cut};
  return true;
}

Captures::Captures(std::vector<Capture> captures) : captures_(std::move(captures)), heads_(captures_.size()) {}

void Captures::pull(std::size_t index) {
  if (!captures_[index].next(heads_[index])) return;
  order_.emplace_back(heads_[index].ts, index);
  std::push_heap(order_.begin(), order_.end(), std::greater<>());
}

bool Captures::next(Datagram& out) {
  if (captures_.size() == 1) return captures_[0].next(out);
  if (!primed_) {
    for (std::size_t i = 0; i < captures_.size(); ++i) pull(i);
    primed_ = true;
  }
  if (order_.empty()) return false;
  std::pop_heap(order_.begin(), order_.end(), std::greater<>());
  const std::size_t index = order_.back().second;
  order_.pop_back();
  out = heads_[index];
  pull(index);
  return true;
}

// ---- sequences -----------------------------------------------------------------------------------------------------

void Sequence::open(std::uint64_t seq, const std::string& name, std::int64_t ts, TransportCounts& counts,
                    std::vector<Gap>& gaps) {
  if (expected == 0) expected = seq;
  if (seq <= expected) return;
  ++counts.gap;
  counts.missing += seq - expected;
  if (gaps.size() < MAX_GAPS) {
    gaps.push_back(Gap{name, expected, seq - expected, ts});
    lost_.emplace_back(expected, seq - 1);
  }
  expected = seq;
}

bool Sequence::take(std::uint64_t seq, TransportCounts& counts) noexcept {
  if (seq >= expected) {
    expected = seq + 1;
    return true;
  }
  ++counts.duplicate_seq;
  counts.late += was_lost(seq);
  return false;
}

bool Sequence::was_lost(std::uint64_t seq) const noexcept {
  const auto behind = std::upper_bound(lost_.begin(), lost_.end(), std::pair{seq, UINT64_MAX});
  return behind != lost_.begin() && seq <= std::prev(behind)->second;
}

void Sequence::restart() noexcept {
  expected = 1;
  ended = false;
  lost_.clear();
}

// ---- MoldUDP64 -----------------------------------------------------------------------------------------------------

namespace {
constexpr std::size_t MOLD_NAME = 10, MOLD_HEADER = mold::LENGTH;
}

Sequence& MoldReader::session(const std::uint8_t* name) {
  if (last_ != nullptr && std::memcmp(last_name_.data(), name, MOLD_NAME) == 0) return *last_;
  last_name_.assign(reinterpret_cast<const char*>(name), MOLD_NAME);
  const bool first = sessions_.empty();
  const auto [place, fresh] = sessions_.try_emplace(last_name_);
  if (fresh) {
    counts.session_reset += !first;
    place->second.expected = first ? first_ : 1;
  }
  last_ = &place->second;
  return *last_;
}

void MoldReader::open(const Datagram& datagram) {
  datagram_ = datagram;
  left_ = 0;
  if (datagram.size < MOLD_HEADER) {
    counts.malformed += !datagram.cut;
    return;
  }
  const std::uint64_t seq = be<8>(datagram.data + mold::sequence_at), count = be<2>(datagram.data + mold::count_at);
  const bool data = count != mold::HEARTBEAT && count != mold::END_OF_SESSION;
  if (data && datagram.size == MOLD_HEADER && !datagram.cut) {
    ++counts.requests;
    return;
  }
  if (data && seq > UINT64_MAX - count) {
    ++counts.malformed;
    return;
  }
  ++counts.packets;
  Sequence& now = session(datagram.data);
  if (seq != 0) now.open(seq, last_name_, datagram.ts, counts, gaps);
  if (!data) return idle(now, count, datagram.size);
  numbered_ = seq != 0;
  seq_ = seq;
  left_ = count;
  offset_ = MOLD_HEADER;
}

void MoldReader::idle(Sequence& session, std::uint64_t count, std::size_t size) noexcept {
  counts.trailing += size - MOLD_HEADER;
  if (count == mold::HEARTBEAT) {
    ++counts.heartbeats;
  } else if (!session.ended) {
    session.ended = true;
    ++counts.ended;
  }
}

bool MoldReader::next(Block& out) noexcept {
  while (left_ > 0) {
    const std::uint8_t* p = datagram_.data + offset_;
    const std::size_t there = datagram_.size - offset_;
    const std::size_t size = there < 2 ? 0 : be<2>(p);
    if (there < 2 || size > there - 2) {
      counts.malformed += !datagram_.cut;
      left_ = 0;
      return false;
    }
    offset_ += 2 + size;
    if (--left_ == 0) counts.trailing += datagram_.size - offset_;
    const std::uint64_t seq = seq_;
    seq_ += numbered_;
    if (!numbered_) {
      ++counts.unsequenced;
    } else if (!last_->take(seq, counts)) {
      continue;
    }
    ++counts.messages;
    out = Block{p + 2, size, seq, datagram_.ts};
    return true;
  }
  return false;
}

}  // namespace microrisk
