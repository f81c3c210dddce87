// The rules of microrisk/feed/arbiter.py once more, for the fuzzer: a map of messages, a list of holes, no speed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "input.hpp"

namespace fuzz {

// Kinds of microrisk/spec/journal.py, typed in.
constexpr std::uint8_t RUN = 1, GAP = 6, SESSION = 7, END = 9;

struct NaiveRecord {
  std::uint8_t kind;
  std::int64_t at;
  std::uint64_t seq;
  Bytes body;
  bool operator==(const NaiveRecord&) const = default;
};

class NaiveArbiter {
 public:
  struct Hole {
    std::uint64_t first, end;
    std::int64_t since;
  };

  NaiveArbiter(Bytes session, std::uint64_t expected, std::size_t window)
      : session_(std::move(session)), window_(window), seen_(expected), next(expected) {}

  void take(const Bytes& d, std::int64_t at) {
    if (d.size() < 20) return;
    const std::uint64_t seq = big(d, 10, 8), count = big(d, 18, 2);
    const bool data = count != 0 && count != 0xFFFF;
    if ((data && (d.size() == 20 || seq > ~std::uint64_t{0} - count)) || seq == 0) return;
    const Bytes name(d.begin(), d.begin() + 10);
    if (session_.empty()) {
      session_ = name;
      put_session(next == 0 ? seq : next, at);
    }
    if (name != session_) return wait(name, d);
    if (!believed(seq)) return;
    if (data) return accept(seq, blocks(d, 20, count), at);
    if (count == 0xFFFF && end_ == 0) end_ = seq;
    reveal(seq, at);
    settle(at);
  }

  void take_stream(std::uint64_t seq, const Bytes& d, std::int64_t at) {
    const std::vector<Bytes> found = blocks(d, 0, ~std::uint64_t{0});
    if (found.empty() || seq == 0 || seq > ~std::uint64_t{0} - found.size() || !believed(seq)) return;
    accept(seq, found, at);
  }

  void give_up(std::uint64_t upto, std::int64_t at) {
    if (joining) return;
    while (!holes.empty() && holes.front().first < upto) {
      lose(upto, at);
      release(at);
    }
    settle(at);
  }

  void begin_session(const Bytes& name, std::int64_t midnight, std::uint64_t first, std::int64_t at) {
    if (!waiting.empty() && waiting_name() != name) refuse(waiting_name());
    give_up(seen_, at);
    if (!session_.empty() && session_ != name) over(session_);
    std::erase(past_, name);
    session_ = name, midnight_ = midnight;
    next = seen_ = first;
    end_ = 0, ended = joining = false;
    held.clear(), holes.clear();
    put_session(first, at);
    for (const Bytes& d : std::exchange(waiting, {})) take(d, at);
  }

  void joined(std::uint64_t seq, std::int64_t at) {
    joining = false;
    const std::uint64_t old = next == 0 ? seq : next;
    seen_ = std::max(seen_, seq);
    held.erase(held.begin(), held.lower_bound(seq));
    std::deque<Hole> left;
    if (seq < old) left.push_back({seq, old, at});
    for (const Hole& h : holes)
      if (h.end > seq) left.push_back({std::max(h.first, seq), h.end, h.since});
    holes = left;
    next = seq;
    settle(at);
  }

  void refuse(const Bytes& name) {
    over(name);
    waiting.clear();
  }

  Bytes waiting_name() const { return waiting.empty() ? Bytes{} : Bytes(waiting[0].begin(), waiting[0].begin() + 10); }

 private:
  Bytes session_;
  std::size_t window_;
  std::uint64_t seen_, end_ = 0;
  std::int64_t midnight_ = 0;
  std::deque<Bytes> past_;  // the last 16

 public:
  std::uint64_t next;
  bool ended = false, joining = false;
  std::vector<NaiveRecord> records;
  std::map<std::uint64_t, Bytes> held;
  std::deque<Hole> holes;
  std::vector<Bytes> waiting;

 private:
  static std::uint64_t big(const Bytes& d, std::size_t at, std::size_t n) {
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < n; ++i) v = v << 8 | d[at + i];
    return v;
  }
  static Bytes little(std::uint64_t v) {
    Bytes out;
    for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(v >> (8 * i)));
    return out;
  }
  static std::vector<Bytes> blocks(const Bytes& d, std::size_t at, std::uint64_t count) {
    std::vector<Bytes> out;
    while (out.size() < count && at + 2 <= d.size() && at + 2 + big(d, at, 2) <= d.size()) {
      const std::size_t end = at + 2 + static_cast<std::size_t>(big(d, at, 2));
      out.emplace_back(d.begin() + static_cast<std::ptrdiff_t>(at), d.begin() + static_cast<std::ptrdiff_t>(end));
      at = end;
    }
    return out;
  }

  void over(const Bytes& name) {
    past_.push_back(name);
    if (past_.size() > 16) past_.pop_front();
  }
  void put_session(std::uint64_t first, std::int64_t at) {
    Bytes body = little(static_cast<std::uint64_t>(midnight_));
    body.insert(body.end(), session_.begin(), session_.end());
    records.push_back({SESSION, at, first, body});
  }
  void wait(const Bytes& name, const Bytes& d) {
    if (std::find(past_.begin(), past_.end(), name) == past_.end() && (waiting.empty() || waiting_name() == name))
      waiting.push_back(d);
  }
  bool believed(std::uint64_t seq) {
    if (next == 0) next = seen_ = seq;
    return seq <= seen_ || seq - seen_ <= std::uint64_t{1} << 32;
  }
  void reveal(std::uint64_t upto, std::int64_t at) {
    if (upto <= seen_) return;
    if (!holes.empty() && holes.back().end == seen_) {
      holes.back().end = upto;
    } else {
      holes.push_back({seen_, upto, at});
    }
    seen_ = upto;
  }
  void accept(std::uint64_t seq, const std::vector<Bytes>& found, std::int64_t at) {
    if (!found.empty()) reveal(seq, at);
    for (std::size_t i = 0; i < found.size(); ++i) one(seq + i, found[i]);
    if (!found.empty()) settle(at);
  }
  void one(std::uint64_t n, const Bytes& block) {
    if (n >= seen_) {
      held[n] = block;
      seen_ = n + 1;
      return;
    }
    for (auto h = holes.begin(); h != holes.end(); ++h) {
      if (n < h->first || n >= h->end) continue;
      held[n] = block;
      const Hole before{h->first, n, h->since}, behind{n + 1, h->end, h->since};
      h = holes.erase(h);
      if (behind.first < behind.end) h = holes.insert(h, behind);
      if (before.first < before.end) holes.insert(h, before);
      return;
    }
  }
  void release(std::int64_t at) {
    NaiveRecord run{RUN, at, next, {}};
    for (auto m = held.find(next); m != held.end(); m = held.find(next)) {
      run.body.insert(run.body.end(), m->second.begin(), m->second.end());
      held.erase(m);
      ++next;
    }
    if (!run.body.empty()) records.push_back(run);
  }
  void lose(std::uint64_t upto, std::int64_t at) {
    Hole& h = holes.front();
    const std::uint64_t end = std::min(h.end, upto);
    records.push_back({GAP, at, h.first, little(end - h.first)});
    next = h.first = end;
    if (h.first == h.end) holes.pop_front();
  }
  void settle(std::int64_t at) {
    if (joining) return;
    release(at);
    while (held.size() > window_) {
      lose(seen_, at);
      release(at);
    }
    if (end_ != 0 && !ended && next >= end_) {
      ended = true;
      records.push_back({END, at, end_, {}});
    }
  }
};

}  // namespace fuzz
