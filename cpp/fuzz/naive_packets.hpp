// A second reader of captures and of the two transports inside them, to compare with.
//
// Everything is copied, cut and counted in the plainest way. Written from the rules of microrisk/feed/pcap.py, mold.py
// and iex.py, and from the pcap and pcapng drafts, MoldUDP64 1.00 and IEX-TP 1.25; no line is shared with cpp/src.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "input.hpp"
#include "microrisk/capture.hpp"

namespace fuzz {

using microrisk::CaptureCounts;
using microrisk::TransportCounts;
using Wide = __int128;

// Bytes from `at` to `end`, as far as they are there.
inline Bytes slice(const Bytes& from, std::size_t at, std::size_t end) {
  at = std::min(at, from.size()), end = std::min(std::max(at, end), from.size());
  return Bytes(from.begin() + static_cast<std::ptrdiff_t>(at), from.begin() + static_cast<std::ptrdiff_t>(end));
}
inline std::uint64_t number(const Bytes& b, std::size_t at, std::size_t n, bool big) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < n; ++i) out = out * 256 + b[big ? at + i : at + n - 1 - i];
  return out;
}

// ---- captures ------------------------------------------------------------------------------------------------------

struct NaiveDatagram {
  std::int64_t ts;
  std::uint64_t dst, port;
  Bytes payload;
  bool cut;
};

class NaiveCapture {
 public:
  CaptureCounts counts;
  std::vector<NaiveDatagram> datagrams;

  // False: no capture.
  bool read(const Bytes& file) {
    if (file.size() < 4) return false;
    const std::uint64_t magic = number(file, 0, 4, true);
    if (magic == 0x0A0D0D0A) return blocks(file), true;
    const bool big = magic == 0xA1B2C3D4 || magic == 0xA1B23C4D;
    const bool little = magic == 0xD4C3B2A1 || magic == 0x4D3CB2A1;
    if ((!big && !little) || file.size() < 24) return false;
    return classic(file, big), true;
  }

 private:
  struct Clock {
    std::uint64_t link;
    unsigned exponent = 6;
    bool binary = false;
    std::int64_t offset_s = 0;

    // floor(stamp * 10^9 / resolution) + offset, 0 when it does not fit. Beyond 10^38 a second nothing is left.
    std::int64_t ns(std::uint64_t stamp) const {
      Wide whole = 0;
      if (binary) {
        whole = static_cast<Wide>(stamp) * 1'000'000'000 >> exponent;
      } else if (exponent < 38) {
        whole = static_cast<Wide>(stamp) * 1'000'000'000;
        for (unsigned i = 0; i < exponent; ++i) whole /= 10;
      }
      whole += static_cast<Wide>(offset_s) * 1'000'000'000;
      const Wide limit = static_cast<Wide>(1) << 63;
      return whole > -limit && whole < limit ? static_cast<std::int64_t>(whole) : 0;
    }
  };

  void classic(const Bytes& file, bool big) {
    const bool nano = number(file, 0, 4, big) == 0xA1B23C4D;
    const std::uint64_t link = number(file, 20, 4, big) % (1U << 28);
    std::size_t at = 24;
    while (at < file.size()) {
      if (file.size() - at < 16) return truncated(at);
      const std::uint64_t seconds = number(file, at, 4, big), fraction = number(file, at + 4, 4, big);
      const std::size_t end = at + 16 + number(file, at + 8, 4, big);
      const bool broken = end > file.size();
      if (broken) truncated(at);
      const std::uint64_t ts = seconds * 1'000'000'000 + fraction * (nano ? 1 : 1000);
      packet(static_cast<std::int64_t>(ts), link, slice(file, at + 16, end), broken);
      at = end;
    }
  }

  void blocks(const Bytes& file) {
    bool big = false;
    std::vector<Clock> clocks;
    for (std::size_t at = 0; at < file.size();) {
      const std::size_t there = file.size() - at;
      if (there >= 4 && number(file, at, 4, true) == 0x0A0D0D0A) {
        big = there < 12 || number(file, at + 8, 4, false) != 0x1A2B3C4D;
        clocks.clear();
      }
      const std::uint64_t size = there < 8 ? 0 : number(file, at + 4, 4, big);
      if (size < 12 || size % 4 != 0) return truncated(at);
      const bool broken = size > there;
      if (broken) truncated(at);
      block(number(file, at, 4, big), slice(file, at + 8, at + size - 4), big, clocks, broken);
      at += size;
    }
  }

  void block(std::uint64_t kind, const Bytes& body, bool big, std::vector<Clock>& clocks, bool broken) {
    if (kind == 1 && body.size() >= 8) {
      clocks.push_back(clock(body, big));
    } else if ((kind == 6 || kind == 2) && body.size() >= 20) {
      const std::uint64_t from = number(body, 0, kind == 6 ? 4 : 2, big);
      if (from >= clocks.size()) return;
      const std::uint64_t stamp = number(body, 4, 4, big) << 32 | number(body, 8, 4, big);
      packet(clocks[from].ns(stamp), clocks[from].link, slice(body, 20, 20 + number(body, 12, 4, big)), broken);
    } else if (kind == 3 && body.size() >= 4 && !clocks.empty()) {
      packet(0, clocks[0].link, slice(body, 4, 4 + number(body, 0, 4, big)), broken);
    }
  }

  static Clock clock(const Bytes& body, bool big) {
    Clock out{number(body, 0, 2, big)};
    for (std::size_t at = 8; at + 4 <= body.size();) {
      const std::uint64_t code = number(body, at, 2, big), length = number(body, at + 2, 2, big);
      const Bytes value = slice(body, at + 4, at + 4 + length);
      if (code == 0) break;
      if (code == 9 && length == 1 && value.size() == 1) out.exponent = value[0] & 127, out.binary = value[0] > 127;
      if (code == 14 && length == 8 && value.size() == 8) {
        out.offset_s = static_cast<std::int64_t>(number(value, 0, 8, big));
      }
      at += 4 + length + (4 - length % 4) % 4;
    }
    return out;
  }

  // Where the IPv4 header begins.
  static std::optional<std::size_t> ip_of(std::uint64_t link, const Bytes& p) {
    switch (link) {
      case 101:
      case 228:
      case 12:
      case 14: return 0;
      case 276:
        return p.size() >= 20 && number(p, 0, 2, true) == 0x0800 ? std::optional<std::size_t>(20) : std::nullopt;
      case 1:
      case 113: break;
      default: return std::nullopt;
    }
    std::size_t at = link == 1 ? 12 : 14;
    for (; at + 2 <= p.size(); at += 4) {
      const std::uint64_t type = number(p, at, 2, true);
      if (type == 0x0800) return at + 2;
      if (type != 0x8100 && type != 0x88A8 && type != 0x9100) break;
    }
    return std::nullopt;
  }

  void packet(std::int64_t ts, std::uint64_t link, const Bytes& p, bool broken) {
    ++counts.packets;
    const auto ip = ip_of(link, p);
    if (!ip || p.size() < *ip + 20 || p[*ip] / 16 != 4 || p[*ip + 9] != 17) {
      counts.other += broken ? 0 : 1;
      return;
    }
    if (number(p, *ip + 6, 2, true) % 0x4000 != 0) {
      ++counts.fragments;
      return;
    }
    const std::size_t udp = *ip + p[*ip] % 16U * 4;
    const std::uint64_t length = udp + 8 <= p.size() ? number(p, udp + 4, 2, true) : 0;
    const bool cut = udp + length > p.size();
    if ((length < 8 || cut) && !broken) ++counts.cut;
    if (length < 8) return;
    ++counts.datagrams;
    const std::uint64_t dst = number(p, *ip + 16, 4, true), port = number(p, udp + 2, 2, true);
    datagrams.push_back(NaiveDatagram{ts, dst, port, slice(p, udp + 8, udp + length), cut});
  }

  void truncated(std::size_t at) { counts.truncated_at = static_cast<std::int64_t>(at); }
};

// Several captures in the order of capture time; of equal times the first capture's.
inline std::vector<NaiveDatagram> merge(const std::vector<NaiveCapture>& captures) {
  std::vector<NaiveDatagram> out;
  std::vector<std::size_t> at(captures.size(), 0);
  for (;;) {
    std::optional<std::size_t> first;
    for (std::size_t i = 0; i < captures.size(); ++i) {
      if (at[i] == captures[i].datagrams.size()) continue;
      if (!first || captures[i].datagrams[at[i]].ts < captures[*first].datagrams[at[*first]].ts) first = i;
    }
    if (!first) return out;
    out.push_back(captures[*first].datagrams[at[*first]++]);
  }
}

// ---- transports ----------------------------------------------------------------------------------------------------

struct NaiveBlock {
  std::uint64_t seq;
  std::int64_t ts;
  Bytes bytes;
};
struct NaiveGap {
  std::string session;
  std::uint64_t first, count;
  std::int64_t ts;
};

// One stream of numbers: what came next, and which ranges were given up.
struct NaiveSession {
  std::uint64_t expected = 0;
  bool ended = false;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> lost;  // first, how many

  void arrive(std::uint64_t seq, const std::string& name, std::int64_t ts, TransportCounts& c,
              std::vector<NaiveGap>& gaps) {
    if (expected == 0) expected = seq;
    if (seq <= expected) return;
    ++c.gap;
    c.missing += seq - expected;
    if (gaps.size() < 10'000) {
      gaps.push_back(NaiveGap{name, expected, seq - expected, ts});
      lost.emplace_back(expected, seq - expected);
    }
    expected = seq;
  }
  bool fresh(std::uint64_t seq, TransportCounts& c) {
    if (seq >= expected) {
      expected = seq + 1;
      return true;
    }
    ++c.duplicate_seq;
    for (const auto& [first, n] : lost) {
      if (seq >= first && seq - first < n) {
        ++c.late;
        break;
      }
    }
    return false;
  }
};

class NaiveMold {
 public:
  TransportCounts counts;
  std::vector<NaiveGap> gaps;

  std::vector<NaiveBlock> read(const NaiveDatagram& d) {
    const Bytes& p = d.payload;
    if (p.size() < 20) return counts.malformed += !d.cut, std::vector<NaiveBlock>{};
    const std::uint64_t seq = number(p, 10, 8, true), count = number(p, 18, 2, true);
    const bool data = count != 0 && count != 0xFFFF;
    if (data && p.size() == 20 && !d.cut) return ++counts.requests, std::vector<NaiveBlock>{};
    if (data && seq > UINT64_MAX - count) return ++counts.malformed, std::vector<NaiveBlock>{};
    ++counts.packets;
    const std::string name(p.begin(), p.begin() + 10);
    const bool first = sessions_.empty();
    const auto [place, fresh] = sessions_.try_emplace(name);
    NaiveSession& session = place->second;
    if (fresh && !first) ++counts.session_reset, session.expected = 1;
    if (seq != 0) session.arrive(seq, name, d.ts, counts, gaps);
    if (data) return blocks(session, d, seq, count);
    counts.trailing += p.size() - 20;
    if (count == 0) {
      ++counts.heartbeats;
    } else if (!session.ended) {
      session.ended = true, ++counts.ended;
    }
    return {};
  }

 private:
  std::vector<NaiveBlock> blocks(NaiveSession& session, const NaiveDatagram& d, std::uint64_t seq,
                                 std::uint64_t count) {
    std::vector<NaiveBlock> out;
    std::size_t at = 20;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::size_t size = d.payload.size() >= at + 2 ? number(d.payload, at, 2, true) : SIZE_MAX / 2;
      if (at + 2 + size > d.payload.size()) return counts.malformed += !d.cut, out;
      const Bytes block = slice(d.payload, at + 2, at + 2 + size);
      at += 2 + size;
      if (seq == 0) ++counts.unsequenced;
      if (seq != 0 && !session.fresh(seq + i, counts)) continue;
      ++counts.messages;
      out.push_back(NaiveBlock{seq == 0 ? 0 : seq + i, d.ts, block});
    }
    counts.trailing += d.payload.size() - at;
    return out;
  }

  std::map<std::string, NaiveSession> sessions_;
};

// A segment's messages, behind a restart of the stream when there is one.
struct NaiveSegment {
  std::optional<std::int64_t> restart_sent;
  std::uint64_t first = 0;
  std::vector<NaiveBlock> blocks;
};

class NaiveIexTransport {
 public:
  explicit NaiveIexTransport(std::uint64_t protocol) : protocol_(protocol) {}

  TransportCounts counts;
  std::vector<NaiveGap> gaps;

  NaiveSegment read(const NaiveDatagram& d) {
    const Bytes& p = d.payload;
    if (p.size() < 40) return counts.malformed += !d.cut, NaiveSegment{};
    if (p[0] != 1) return ++counts.malformed, NaiveSegment{};
    if (number(p, 2, 2, false) != protocol_) return ++counts.foreign, NaiveSegment{};
    const std::uint64_t count = number(p, 14, 2, false), first = number(p, 24, 8, false);
    if (first == 0 || Wide{first} + count > INT64_MAX) return ++counts.malformed, NaiveSegment{};
    ++counts.packets;
    const auto sent = static_cast<std::int64_t>(number(p, 32, 8, false));
    NaiveSegment out;
    out.first = first;
    Stream& stream = enter(p, first, sent, out);
    stream.newest = std::max(stream.newest, sent);
    stream.session.arrive(first, std::string(p.begin() + 8, p.begin() + 12), d.ts, counts, gaps);
    read_blocks(stream, d, count, out);
    return out;
  }

 private:
  struct Stream {
    NaiveSession session;
    std::int64_t newest = INT64_MIN;
  };

  Stream& enter(const Bytes& p, std::uint64_t first, std::int64_t sent, NaiveSegment& out) {
    const auto key = std::pair{number(p, 4, 4, false), number(p, 8, 4, false)};
    const bool known = streams_.contains(key), alone = streams_.empty();
    Stream& stream = streams_[key];
    const bool anew = known && first == 1 && stream.session.expected > 1 && number(p, 16, 8, false) == 0 &&
                      Wide{sent} - stream.newest > 1'000'000'000;
    if (anew || (!known && !alone)) {
      ++counts.session_reset;
      stream.session = NaiveSession{};
      stream.session.expected = 1;
      out.restart_sent = sent;
    }
    return stream;
  }

  void read_blocks(Stream& stream, const NaiveDatagram& d, std::uint64_t count, NaiveSegment& out) {
    const std::size_t says = 40 + number(d.payload, 12, 2, false), end = std::min(says, d.payload.size());
    const bool broken = says > d.payload.size();
    if (broken && !d.cut) ++counts.malformed;
    if (count == 0) ++counts.heartbeats;
    std::size_t at = 40;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::size_t size = at + 2 <= end ? number(d.payload, at, 2, false) : SIZE_MAX / 2;
      if (at + 2 + size > end) {
        if (!broken) ++counts.malformed;
        counts.trailing += d.payload.size() - end;
        return;
      }
      if (stream.session.fresh(out.first + i, counts)) {
        ++counts.messages;
        out.blocks.push_back(NaiveBlock{out.first + i, d.ts, slice(d.payload, at + 2, at + 2 + size)});
      }
      at += 2 + size;
    }
    counts.trailing += d.payload.size() - at;
  }

  std::uint64_t protocol_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, Stream> streams_;
};

}  // namespace fuzz
