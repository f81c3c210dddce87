#include "microrisk/arbiter.hpp"

#include <algorithm>
#include <stdexcept>

#include "bytes.hpp"

namespace microrisk {

namespace {

using journal::Kind;

constexpr std::size_t CHUNK_COST = 128;  // bytes that a chunk takes besides its messages
constexpr std::size_t MAX_LOST = 10'000, MAX_PAST = 16;
constexpr std::size_t MAX_WAITING = 65'536, MAX_WAIT_BYTES = std::size_t{16} << 20;
constexpr std::size_t HEADER = mold::LENGTH;

std::string padded(std::string name) {
  if (name.size() > Arbiter::NAME) throw std::invalid_argument("a session's name has at most 10 bytes");
  if (!name.empty()) name.resize(Arbiter::NAME, ' ');
  return name;
}

}  // namespace

Arbiter::Arbiter(std::uint16_t feed, std::int64_t midnight_ns, const std::string& session, std::uint64_t expected,
                 std::size_t window)
    : feed_(feed),
      midnight_ns_(midnight_ns),
      window_(window),
      session_(padded(session)),
      expected_(expected),
      seen_(expected) {
  offsets_.reserve(1024);
}

void Arbiter::follow(const std::string& session, std::uint64_t expected, bool ended) {
  if (live_) return;
  session_ = session;
  expected_.set(expected);
  seen_ = expected;
  ended_.set(ended);
  end_ = ended ? expected : 0;
}

// Everything held, this much more, and a header for each piece: what one call appends at most.
void Arbiter::require_room(const Journal& out, std::size_t more) const {
  const std::size_t pieces = 2 * (holes_.size() + chunks_.size()) + 4 * wait_.size() + 8;
  if (!out.room(held_bytes_ + wait_bytes_ + more + pieces * (journal::RECORD_HEADER_BYTES + 32))) {
    throw std::length_error("the journal's block is full: flush it first");
  }
}

// ---- datagrams -----------------------------------------------------------------------------------------------------

void Arbiter::take(std::size_t line, const std::uint8_t* data, std::size_t size, std::int64_t recv_ns, Journal& out,
                   bool cut) {
  if (line >= MAX_LINES) throw std::invalid_argument("lines are numbered 0 to 25");
  require_room(out, size);
  live();
  if (size < HEADER) return counts.malformed.add(!cut);
  const std::uint64_t seq = be<8>(data + mold::sequence_at), count = be<2>(data + mold::count_at);
  const bool has_blocks = count != mold::HEARTBEAT && count != mold::END_OF_SESSION;
  if (has_blocks && size == HEADER && !cut) return counts.requests.add(1);
  if (has_blocks && seq > UINT64_MAX - count) return counts.malformed.add(1);
  lines_[line].packets.add(1);
  if (seq == 0) return counts.unsequenced.add(has_blocks ? count : 1);
  if (!of_session(line, data, size, seq, recv_ns, out, cut)) return;
  if (expected() == 0) expected_.set(seen_ = seq);
  if (seq > seen_ && seq - seen_ > MAX_AHEAD) return counts.wild.add(1);
  note_line(line, seq, has_blocks ? count : 0);
  if (!has_blocks) {
    counts.trailing.add(size - HEADER);
    return idle(count, seq, recv_ns, out);
  }
  const std::size_t n = read_blocks(data, size, HEADER, count);
  if (n < count) counts.malformed.add(!cut);
  if (n == count) counts.trailing.add(size - offsets_[n]);
  if (n > 0) accept(Packet{seq, seq + n, data}, recv_ns, out);
}

void Arbiter::take_stream(std::uint64_t seq, const std::uint8_t* blocks, std::size_t size, std::int64_t recv_ns,
                          Journal& out) {
  require_room(out, size);
  live();
  const std::size_t n = read_blocks(blocks, size, 0, UINT64_MAX);
  counts.malformed.add(offsets_[n] != size);
  if (n == 0) return;
  if (seq == 0) return counts.unsequenced.add(n);
  if (seq > UINT64_MAX - n) return counts.malformed.add(1);
  if (expected() == 0) expected_.set(seen_ = seq);
  if (seq > seen_ && seq - seen_ > MAX_AHEAD) return counts.wild.add(1);
  accept(Packet{seq, seq + n, blocks}, recv_ns, out);
}

// Finds up to `count` whole blocks; how many. Behind the last one offsets_ has its end.
std::size_t Arbiter::read_blocks(const std::uint8_t* data, std::size_t size, std::size_t offset, std::uint64_t count) {
  offsets_.clear();
  offsets_.push_back(static_cast<std::uint32_t>(offset));
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::size_t there = size - offset;
    const std::size_t length = there < 2 ? 0 : be<2>(data + offset);
    if (there < 2 || length > there - 2) break;
    offset += 2 + length;
    offsets_.push_back(static_cast<std::uint32_t>(offset));
  }
  return offsets_.size() - 1;
}

void Arbiter::note_line(std::size_t line, std::uint64_t seq, std::uint64_t count) noexcept {
  Line& l = lines_[line];
  if (l.next != 0 && seq > l.next) l.missing.add(seq - l.next);
  if (count > 0 && seq < l.next) counts.reordered.add(1);
  l.next = std::max(l.next, seq + count);
}

void Arbiter::idle(std::uint64_t count, std::uint64_t seq, std::int64_t recv_ns, Journal& out) {
  if (count == mold::HEARTBEAT) {
    counts.heartbeats.add(1);
    counts.behind.add(seq < expected());
  } else {
    counts.ends.add(1);
    if (end_ == 0) end_ = seq;
  }
  reveal(seq, recv_ns);
  settle(recv_ns, out);
}

// ---- sessions ------------------------------------------------------------------------------------------------------

bool Arbiter::of_session(std::size_t line, const std::uint8_t* data, std::size_t size, std::uint64_t seq,
                         std::int64_t recv_ns, Journal& out, bool cut) {
  if (session_.size() == NAME && std::memcmp(session_.data(), data, NAME) == 0) return true;
  const std::string name(reinterpret_cast<const char*>(data), NAME);
  if (session_.empty()) {
    adopt(name, seq, recv_ns, out);
    return true;
  }
  keep_waiting(name, Waiting{line, recv_ns, cut, {data, data + size}});
  return false;
}

void Arbiter::adopt(const std::string& name, std::uint64_t seq, std::int64_t recv_ns, Journal& out) {
  session_ = name;
  put_session(expected() == 0 ? seq : expected(), recv_ns, out);
}

void Arbiter::put_session(std::uint64_t first, std::int64_t recv_ns, Journal& out) const {
  std::array<std::uint8_t, 8 + NAME> body;
  std::memcpy(body.data(), &midnight_ns_, 8);
  std::memcpy(body.data() + 8, session_.data(), NAME);
  out.append(Record{feed_, Kind::SESSION, 0, recv_ns, first, body.data(), body.size()});
}

// Datagrams of one other session wait; those of sessions that are over, or of a third one, do not.
void Arbiter::keep_waiting(const std::string& name, Waiting datagram) {
  const bool over = std::find(past_.begin(), past_.end(), name) != past_.end();
  const bool room = wait_.size() < MAX_WAITING && wait_bytes_ + datagram.bytes.size() <= MAX_WAIT_BYTES;
  if (over || (!waiting_.empty() && waiting_ != name) || !room) return counts.foreign.add(1);
  waiting_ = name;
  wait_bytes_ += datagram.bytes.size();
  wait_.push_back(std::move(datagram));
  counts.waiting.set(wait_.size());
}

void Arbiter::refuse_session() {
  if (waiting_.empty()) return;
  past_.push_back(std::exchange(waiting_, {}));
  if (past_.size() > MAX_PAST) past_.pop_front();
  counts.foreign.add(wait_.size());
  wait_.clear();
  wait_bytes_ = 0;
  counts.waiting.set(0);
}

void Arbiter::begin_session(const std::string& name, std::int64_t midnight_ns, std::uint64_t first,
                            std::int64_t recv_ns, Journal& out) {
  const std::string full = padded(name);
  if (full.empty() || first == 0) throw std::invalid_argument("a session needs a name and a first number above 0");
  require_room(out, 0);
  live();
  if (full != waiting_) refuse_session();
  (void)give_up(seen_, recv_ns, out);
  if (!session_.empty() && session_ != full) past_.push_back(session_);
  if (past_.size() > MAX_PAST) past_.pop_front();
  std::erase(past_, full);
  clear_held();
  lost_.clear();
  session_ = full;
  midnight_ns_ = midnight_ns;
  expected_.set(seen_ = first);
  end_ = 0;
  ended_.set(0);
  joining_ = false;
  for (Line& line : lines_) line.next = 0;
  put_session(first, recv_ns, out);
  waiting_.clear();
  wait_bytes_ = 0;
  counts.waiting.set(0);
  for (const Waiting& w : std::exchange(wait_, {})) {
    lines_[w.line].packets.set(lines_[w.line].packets.get() - 1);  // counted when it came
    take(w.line, w.bytes.data(), w.bytes.size(), recv_ns, out, w.cut);
  }
}

// ---- sequence ------------------------------------------------------------------------------------------------------

void Arbiter::accept(const Packet& packet, std::int64_t recv_ns, Journal& out) {
  if (joining_ || !holes_.empty() || packet.first > expected()) return accept_ahead(packet, recv_ns, out);
  const std::uint64_t old = std::min(packet.end, expected()) - packet.first;
  if (old > 0) count_old(packet.first, packet.first + old);
  if (packet.first + old == packet.end) return;
  const std::size_t from = offsets_[old], to = offsets_[packet.end - packet.first];
  put_run(expected(), packet.data + from, to - from, recv_ns, out);
  counts.taken.add(packet.end - expected());
  expected_.set(seen_ = packet.end);
  if (end_ != 0) settle(recv_ns, out);
}

// The general way: new messages are held, then whatever is next in sequence is handed on.
void Arbiter::accept_ahead(const Packet& packet, std::int64_t recv_ns, Journal& out) {
  const std::uint64_t held = counts.held.get();
  fill(packet, recv_ns);
  if (packet.end > seen_) {
    const std::uint64_t from = std::max(packet.first, seen_);
    reveal(from, recv_ns);
    hold(packet, from, packet.end);
    seen_ = packet.end;
  }
  counts.duplicates.add(packet.end - packet.first - (counts.held.get() - held));
  if (packet.first < expected()) {
    const std::uint64_t old = std::min(packet.end, expected());
    counts.duplicates.set(counts.duplicates.get() - (old - packet.first));  // count_old() counts them
    count_old(packet.first, old);
  }
  settle(recv_ns, out);
}

// Holds the messages that lie in holes.
void Arbiter::fill(const Packet& packet, std::int64_t recv_ns) {
  auto at = holes_.upper_bound(packet.first);
  if (at != holes_.begin()) --at;
  while (at != holes_.end() && at->second.first < packet.end) {
    const Hole hole = at->second;
    const std::uint64_t from = std::max(hole.first, packet.first), to = std::min(hole.end, packet.end);
    ++at;
    if (from >= to) continue;
    holes_.erase(hole.first);
    if (hole.first < from) holes_.emplace(hole.first, Hole{hole.first, from, hole.since_ns});
    if (to < hole.end) holes_.emplace(to, Hole{to, hole.end, hole.since_ns});
    hold(packet, from, to);
    counts.recovered.add(to - from);
    missing_filled.add(static_cast<std::uint64_t>(std::max<std::int64_t>(recv_ns - hole.since_ns, 0)));
  }
}

// Numbers below `upto` exist. A hole at the end grows instead of getting a neighbour: their number stays bounded.
void Arbiter::reveal(std::uint64_t upto, std::int64_t recv_ns) {
  if (upto <= seen_) return;
  if (!holes_.empty() && holes_.rbegin()->second.end == seen_) {
    holes_.rbegin()->second.end = upto;
  } else {
    holes_.emplace(seen_, Hole{seen_, upto, recv_ns});
  }
  seen_ = upto;
}

void Arbiter::hold(const Packet& packet, std::uint64_t first, std::uint64_t end) {
  const std::size_t from = offsets_[first - packet.first], to = offsets_[end - packet.first];
  chunks_.emplace(first, Chunk{end, {packet.data + from, packet.data + to}});
  held_bytes_ += CHUNK_COST + to - from;
  counts.held.add(end - first);
}

void Arbiter::drop(std::map<std::uint64_t, Chunk>::iterator chunk) {
  held_bytes_ -= CHUNK_COST + chunk->second.bytes.size();
  counts.held.set(counts.held.get() - (chunk->second.end - chunk->first));
  chunks_.erase(chunk);
}

void Arbiter::put_run(std::uint64_t seq, const std::uint8_t* data, std::size_t size, std::int64_t recv_ns,
                      Journal& out) {
  out.append(Record{feed_, Kind::RUN, 0, recv_ns, seq, data, size});
}

// Hands on the chunks that are next, as one record.
void Arbiter::release(std::int64_t recv_ns, Journal& out) {
  for (bool first = true; !chunks_.empty() && chunks_.begin()->first == expected(); first = false) {
    const auto at = chunks_.begin();
    const Chunk& chunk = at->second;
    if (first) {
      put_run(expected(), chunk.bytes.data(), chunk.bytes.size(), recv_ns, out);
    } else {
      out.extend(chunk.bytes.data(), chunk.bytes.size());
    }
    counts.taken.add(chunk.end - expected());
    expected_.set(chunk.end);
    drop(at);
  }
}

// Hands on what can be, keeps inside the window, and ends the session when everything of it is there.
void Arbiter::settle(std::int64_t recv_ns, Journal& out) {
  if (joining_) {
    counts.held_max.raise(counts.held.get());
    while (full()) drop_first();
    return count_missing();
  }
  release(recv_ns, out);
  counts.held_max.raise(counts.held.get());
  while (full()) {
    counts.overflow.add(1);
    lose_first(seen_, recv_ns, out);
    release(recv_ns, out);
  }
  count_missing();
  if (end_ != 0 && !ended() && expected() >= end_) {
    ended_.set(1);
    out.append(Record{feed_, Kind::END, 0, recv_ns, end_, nullptr, 0});
  }
}

// While joining: the oldest messages make room; the image may be younger than they are.
void Arbiter::drop_first() {
  const auto at = chunks_.begin();
  const std::uint64_t end = at->second.end;
  counts.dropped.add(end - at->first);
  drop(at);
  holes_.erase(holes_.begin(), holes_.lower_bound(end));
  expected_.set(end);
}

// Declares the first hole lost, as far as it lies below `upto`.
void Arbiter::lose_first(std::uint64_t upto, std::int64_t recv_ns, Journal& out) {
  const Hole hole = holes_.begin()->second;
  const std::uint64_t end = std::min(hole.end, upto), count = end - hole.first;
  holes_.erase(holes_.begin());
  if (end < hole.end) holes_.emplace(end, Hole{end, hole.end, hole.since_ns});
  std::uint8_t body[8];
  std::memcpy(body, &count, 8);
  out.append(Record{feed_, Kind::GAP, 0, recv_ns, hole.first, body, sizeof(body)});
  lost_.emplace_back(hole.first, end);
  if (lost_.size() > MAX_LOST) lost_.pop_front();
  expected_.set(end);
}

std::uint64_t Arbiter::give_up(std::uint64_t upto, std::int64_t recv_ns, Journal& out) {
  if (joining_) return 0;
  require_room(out, 0);
  live();
  std::uint64_t lost = 0;
  while (!holes_.empty() && holes_.begin()->first < upto) {
    const std::uint64_t from = expected();
    lose_first(upto, recv_ns, out);
    lost += expected() - from;
    release(recv_ns, out);
  }
  settle(recv_ns, out);
  return lost;
}

std::vector<Hole> Arbiter::holes() const {
  std::vector<Hole> out;
  out.reserve(holes_.size());
  for (const auto& [first, hole] : holes_) out.push_back(hole);
  return out;
}

// Messages below what is expected: copies, or too late.
void Arbiter::count_old(std::uint64_t first, std::uint64_t end) noexcept {
  counts.duplicates.add(end - first);
  auto at = std::partition_point(lost_.begin(), lost_.end(), [first](const auto& r) { return r.second <= first; });
  for (; at != lost_.end() && at->first < end; ++at) {
    counts.late.add(std::min(end, at->second) - std::max(first, at->first));
  }
}

// ---- joining an image ----------------------------------------------------------------------------------------------

void Arbiter::begin_join() noexcept {
  live();
  joining_ = true;
}

void Arbiter::joined(std::uint64_t seq, std::int64_t recv_ns, Journal& out) {
  if (seq == 0) throw std::invalid_argument("messages are numbered from 1");
  require_room(out, 0);
  live();
  joining_ = false;
  lost_.clear();
  if (expected() == 0) seen_ = seq;
  if (seq > expected()) {
    forget_below(seq);
  } else if (seq < expected()) {
    holes_.emplace(seq, Hole{seq, expected(), recv_ns});
  }
  expected_.set(seq);
  seen_ = std::max(seen_, seq);
  settle(recv_ns, out);
}

// Drops what is held or missing below `seq`; a chunk that reaches beyond is cut.
void Arbiter::forget_below(std::uint64_t seq) {
  while (!holes_.empty() && holes_.begin()->first < seq) {
    const Hole hole = holes_.begin()->second;
    holes_.erase(holes_.begin());
    if (hole.end > seq) holes_.emplace(seq, Hole{seq, hole.end, hole.since_ns});
  }
  while (!chunks_.empty() && chunks_.begin()->first < seq) {
    const auto at = chunks_.begin();
    const std::uint64_t first = at->first;
    const Chunk chunk = at->second;
    drop(at);
    if (chunk.end <= seq) continue;
    (void)read_blocks(chunk.bytes.data(), chunk.bytes.size(), 0, UINT64_MAX);
    hold(Packet{first, chunk.end, chunk.bytes.data()}, seq, chunk.end);
  }
}

void Arbiter::clear_held() noexcept {
  holes_.clear();
  counts.dropped.add(counts.held.get());
  counts.held.set(0);
  counts.missing.set(0);
  chunks_.clear();
  held_bytes_ = 0;
}

}  // namespace microrisk
