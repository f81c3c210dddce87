// ITCH bytes to books in one pass: the messages of every day on a short way, everything else through decoder and
// apply().
//
// What hides the cache misses. A message names its order and its book long before it has to be applied, because the
// bytes behind it are already here. So each group of messages is looked at four times while the groups in front of it
// are applied: (1) frame, type, book and index bucket; (2) the order at the head of the bucket, the end of the ladder;
// (3) the order's level and neighbours, or the level that an add will join; (4) the last order of that level. Each look
// only asks for cache lines: what it reads may be out of date when the message is applied, and nothing depends on it.
// Messages are applied strictly one after the other. Live, with one message in the buffer, there is nothing to look at
// ahead; the latency clock is therefore read without look-ahead.
//
// The short way takes a message only when nothing about it is remarkable (known order, room, no damage); otherwise it
// has changed nothing yet, and the message goes through apply(), where each rule and each count is written down once.
#include <algorithm>
#include <array>

#include "event.hpp"
#include "microrisk/engine.hpp"

namespace microrisk {

namespace {

template <class T>
T load(const std::uint8_t* p) noexcept {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}
std::uint16_t be16(const std::uint8_t* p) noexcept {
  return __builtin_bswap16(load<std::uint16_t>(p));
}
std::uint32_t be32(const std::uint8_t* p) noexcept {
  return __builtin_bswap32(load<std::uint32_t>(p));
}
std::uint64_t be64(const std::uint8_t* p) noexcept {
  return __builtin_bswap64(load<std::uint64_t>(p));
}

void ask_for(const void* line) noexcept {
  __builtin_prefetch(line, 1);
}

// Most of the rungs that locate() compares.
void ask_for_best(const Ladder& ladder) noexcept {
  const Rung* end = ladder.end();
  ask_for(end - 1);
  ask_for(end - 5);
  ask_for(end - 9);
}

constexpr Rung NOWHERE{};

enum class Kind : std::uint8_t { OTHER, ADD, EXECUTE, CANCEL, REMOVE, REPLACE };

struct Type {
  std::uint8_t length;  // 0: no such type
  Kind kind;
  bool add, known;  // posts an order; is about one that rests
};

constexpr std::array<Type, 256> TYPES = [] {
  std::array<Type, 256> out{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i].length = static_cast<std::uint8_t>(itch::length_of(static_cast<unsigned char>(i)));
  }
  out['A'].kind = out['F'].kind = Kind::ADD;
  out['E'].kind = Kind::EXECUTE;
  out['C'].kind = Kind::EXECUTE;
  out['X'].kind = Kind::CANCEL;
  out['D'].kind = Kind::REMOVE;
  out['U'].kind = Kind::REPLACE;
  for (Type& type : out) {
    type.add = type.kind == Kind::ADD;
    type.known = type.kind != Kind::ADD && type.kind != Kind::OTHER;
  }
  return out;
}();

constexpr std::size_t LOCATE_AT = itch::add_order::locate_at, REF_AT = itch::add_order::ref_at;

// The three messages that take from an order have its shares at one place.
constexpr std::size_t TAKEN_AT = itch::order_executed::shares_at;
static_assert(TAKEN_AT == itch::order_executed_price::shares_at && TAKEN_AT == itch::order_cancel::shares_at);

constexpr std::uint32_t NO_PLACE = 0xFFFFFFFF;

// What is known ahead about one message.
struct Ahead {
  const std::uint8_t* p;
  Instrument* in;
  std::uint64_t ref;
  std::uint32_t bucket;
  Handle handle;         // of the order, later of its level or the level that an add will join; a guess
  std::uint32_t target;  // bucket of the order that a replace makes
  std::uint32_t at;      // place of an add or replace in its ladder; a guess
  Kind kind;
  bool ask;
};

}  // namespace

class ItchRun {
 public:
  ItchRun(Engine& engine, ItchDecoder& decoder, const std::uint8_t* data, std::size_t size) noexcept
      : engine_(engine),
        store_(engine.store_),
        decoder_(decoder),
        data_(data),
        size_(size),
        short_(!engine.tracked_ && !engine.before_on_) {}

  // Applies up to `max` messages from `offset` on; the offset behind them.
  std::size_t run(std::size_t offset, std::uint64_t max) {
    const bool look = engine_.look_ahead_ && engine_.clock_ == nullptr;
    std::uint64_t done = 0;
    while (done < max) {
      if (look && decoder_.plain()) done += groups(offset, max - done);
      if (done < max && !one(offset)) break;
      ++done;
    }
    return offset;
  }

 private:
  // Large groups: the number of adds in a group, where its loops end, is a guess that the core loses once a group.
  static constexpr std::size_t GROUP = 32, STAGES = 4;
  // Behind a message that is looked at ahead there are at least so many bytes: fields are read without asking its type.
  static constexpr std::size_t MARGIN = 64;
  // The bytes that are asked for lie so far behind the group that is read: a page, where the core's own stream ends.
  static constexpr std::size_t INPUT_AHEAD = 4096, INPUT_OF_GROUP = GROUP * 32;

  struct Group {
    std::array<Ahead, GROUP> of;
    // Places in `of`: adds, messages about an order that rests, and the replaces among these.
    std::array<std::uint8_t, GROUP> adds, known, moves;
    std::size_t n_adds, n_known, n_moves;
    std::uint32_t version;  // of the index whose buckets these are
  };

  // The pipeline: one new group enters while the one that entered STAGES turns ago is applied. It ends in front of the
  // first group that is not whole: a frame that is not plain, the end, or `max`. Returns how many were applied.
  std::uint64_t groups(std::size_t& offset, std::uint64_t max) {
    std::array<Group, STAGES + 1> ring;
    std::uint64_t in = 0, turn = 0;
    std::size_t ahead = offset;
    const auto at = [&](std::uint64_t age) -> Group& { return ring[(turn - age) % (STAGES + 1)]; };
    const auto there = [&](std::uint64_t age) { return turn >= age && turn - age < in; };
    do {
      if (turn == in && (in + 1) * GROUP <= max && frames(at(0), ahead)) ++in;
      if (there(1)) look_at_orders(at(1));
      if (there(2)) look_at_levels(at(2));
      if (there(3)) look_at_queues(at(3));
      if (there(STAGES)) {
        version_ = at(STAGES).version;
        for (const Ahead& a : at(STAGES).of) apply(a);
      }
      ++turn;
    } while (turn < in + STAGES);
    offset = ahead;
    return in * GROUP;
  }

  void ask_for_input(std::size_t ahead) const noexcept {
    if (size_ - ahead < INPUT_AHEAD + INPUT_OF_GROUP) return;
    for (std::size_t i = 0; i < INPUT_OF_GROUP; i += 64) __builtin_prefetch(data_ + ahead + INPUT_AHEAD + i, 0);
  }

  // Reads a whole group of frames, or none.
  bool frames(Group& g, std::size_t& ahead) noexcept {
    if (size_ - ahead < GROUP * MARGIN) return false;
    ask_for_input(ahead);
    const std::uint8_t* p = data_ + ahead + 2;
    std::size_t n_adds = 0, n_known = 0, n_moves = 0;
    bool plain = true;
    for (std::size_t i = 0; i < GROUP; ++i) {
      const std::size_t length = be16(p - 2);
      const Type type = TYPES[*p];
      plain &= (length == type.length) & (length != 0);
      Ahead& a = g.of[i];
      a.p = p;
      a.kind = type.kind;
      const std::uint32_t locate = be16(p + LOCATE_AT);
      Instrument* in = engine_.find(locate);
      a.in = in;
      a.ref = be64(p + REF_AT);
      a.bucket = static_cast<std::uint32_t>(store_.index().bucket(locate, a.ref));
      a.handle = NO_HANDLE;
      ask_for(store_.index().slot(a.bucket));
      ask_for(in);
      g.adds[n_adds] = g.known[n_known] = g.moves[n_moves] = static_cast<std::uint8_t>(i);
      n_adds += type.add & (in != nullptr);
      n_known += type.known & (in != nullptr);
      n_moves += (type.kind == Kind::REPLACE) & (in != nullptr);
      p += 2 + type.length;
    }
    if (!plain) return false;  // what lies behind such a frame was read for nothing, inside MARGIN
    g.version = store_.index().version();
    g.n_adds = n_adds, g.n_known = n_known, g.n_moves = n_moves;
    for (std::size_t i = 0; i < n_moves; ++i) look_at_target(g.of[g.moves[i]]);
    ahead = static_cast<std::size_t>(p - 2 - data_);
    return true;
  }

  // The bucket of the order that a replace will make.
  void look_at_target(Ahead& a) const noexcept {
    const std::uint64_t ref = be64(a.p + itch::order_replace::new_ref_at);
    a.target = static_cast<std::uint32_t>(store_.index().bucket(be16(a.p + LOCATE_AT), ref));
    ask_for(store_.index().slot(a.target));
  }

  void look_at_orders(Group& g) const noexcept {
    for (Ahead& a : g.of) {
      a.handle = store_.index().first(a.bucket);
      ask_for(&store_.order(a.handle));
    }
    for (std::size_t i = 0; i < g.n_adds; ++i) {
      Ahead& a = g.of[g.adds[i]];
      a.ask = a.p[itch::add_order::side_at] == 'S';
      ask_for_best(a.in->book.side[a.ask]);
    }
  }

  void look_at_levels(Group& g) const noexcept {
    for (std::size_t i = 0; i < g.n_adds; ++i) {
      Ahead& a = g.of[g.adds[i]];
      const Ladder& ladder = a.in->book.side[a.ask];
      const std::size_t at = ladder.locate(to_key(a.ask, be32(a.p + itch::add_order::price_at)));
      a.at = static_cast<std::uint32_t>(at);
      a.handle = ladder.rung(at).level;
      ask_for(&store_.level(a.handle));
    }
    for (std::size_t i = 0; i < g.n_known; ++i) {
      Ahead& a = g.of[g.known[i]];
      const Order* order = &store_.order(a.handle);
      order = pick(order->id != a.ref, &store_.order(order->chain), order);
      ask_for(&store_.order(order->next));
      ask_for(&store_.order(order->prev));
      a.handle = order->level;
      ask_for(&store_.level(a.handle));
    }
  }

  void look_at_queues(Group& g) const noexcept {
    for (std::size_t i = 0; i < g.n_adds; ++i) ask_for(&store_.order(store_.level(g.of[g.adds[i]].handle).tail));
    for (std::size_t i = 0; i < g.n_known; ++i) {
      const Ahead& a = g.of[g.known[i]];
      const Level& level = store_.level(a.handle);
      const Ladder& ladder = a.in->book.side[level.ask()];
      // a level of one order is about to go; otherwise the ladder is not needed, and this asks for a warm line
      ask_for(pick(level.orders > 1, &NOWHERE, ladder.end() - 1));
    }
    for (std::size_t i = 0; i < g.n_moves; ++i) {
      Ahead& a = g.of[g.moves[i]];
      const bool ask = store_.level(a.handle).ask();
      const Ladder& ladder = a.in->book.side[ask];
      const std::size_t at = ladder.locate(to_key(ask, be32(a.p + itch::order_replace::price_at)));
      a.at = static_cast<std::uint32_t>(at);
      ask_for(&store_.level(ladder.rung(at).level));
    }
  }

  // ---- one message -------------------------------------------------------------------------------------------------

  void apply(const Ahead& a) {
    const bool done = a.in != nullptr && short_ && short_message(a);
    if (!done) [[unlikely]]
      whole(ItchDecoder::Message{a.p, TYPES[*a.p].length});
  }

  // False, and nothing is done, when the message is for Engine::apply().
  bool short_message(const Ahead& a) {
    switch (a.kind) {
      case Kind::ADD: return add(a);
      case Kind::REMOVE: return remove(a);
      case Kind::REPLACE: return replace(a);
      case Kind::EXECUTE: return reduce(a, true);
      case Kind::CANCEL: return reduce(a, false);
      default: return false;
    }
  }

  // The bucket of a message; its number is old when the index was rebuilt meanwhile.
  std::size_t bucket(const Ahead& a) const noexcept { return bucket(a, a.bucket, a.ref); }
  std::size_t bucket(const Ahead& a, std::uint32_t ahead, std::uint64_t ref) const noexcept {
    const bool valid = version_ == store_.index().version();
    return valid ? ahead : store_.index().bucket(a.in->book.instrument, ref);
  }

  bool add(const Ahead& a) {
    namespace f = itch::add_order;
    Book& book = a.in->book;
    const std::uint8_t side = a.p[f::side_at];
    const std::uint32_t qty = be32(a.p + f::shares_at), px = be32(a.p + f::price_at);
    const bool plain = ((side == 'B') | (side == 'S')) & (qty != 0) & (px != 0);
    if (!plain || decoder_.unnamed(static_cast<std::uint16_t>(book.instrument))) return false;
    const std::size_t b = bucket(a);
    const bool ask = side == 'S';
    if (!store_.fresh(b, book.instrument, a.ref)) return false;
    const std::size_t at = book.side[ask].locate_from(a.at, to_key(ask, px));
    if (!store_.add_at(book, ask, px, a.ref, qty, b, at)) return false;
    complete(a);
    return true;
  }

  bool reduce(const Ahead& a, bool executed) {
    const std::uint32_t qty = be32(a.p + TAKEN_AT);
    const std::size_t b = bucket(a);
    const Handle h = store_.find_in(b, a.in->book.instrument, a.ref);
    if (h == NO_HANDLE || qty == 0) return false;
    const std::int64_t left = store_.order(h).qty;
    if (qty > left) return false;
    if (executed && a.in->state <= TradingState::PREOPEN) a.in->state = TradingState::TRADING;
    if (qty < left) {
      (void)store_.resize(a.in->book, h, left - qty);  // smaller always fits
    } else {
      store_.remove_from(a.in->book, h, b);
    }
    complete(a);
    return true;
  }

  bool remove(const Ahead& a) {
    const std::size_t b = bucket(a);
    const Handle h = store_.find_in(b, a.in->book.instrument, a.ref);
    if (h == NO_HANDLE) return false;
    store_.remove_from(a.in->book, h, b);
    complete(a);
    return true;
  }

  bool replace(const Ahead& a) {
    namespace f = itch::order_replace;
    Book& book = a.in->book;
    const std::size_t b = bucket(a);
    const Handle h = store_.find_in(b, book.instrument, a.ref);
    const std::uint64_t ref = be64(a.p + f::new_ref_at);
    const std::uint32_t qty = be32(a.p + f::shares_at), px = be32(a.p + f::price_at);
    if (h == NO_HANDLE || qty == 0 || px == 0) return false;
    const std::size_t target = bucket(a, a.target, ref);
    const bool ask = store_.level_of(h).ask();
    const std::int64_t key = to_key(ask, px);
    const std::size_t at = book.side[ask].locate_from(a.at, key);
    if (!store_.fresh(target, book.instrument, ref) || !store_.has_room(book, ask, at, key, qty)) return false;
    store_.remove_from(book, h, b);
    (void)store_.add_at(book, ask, px, ref, qty, target, book.side[ask].locate_from(at, key));
    complete(a);
    return true;
  }

  // The end of an event that changed a book.
  void complete(const Ahead& a) {
    Engine& e = engine_;
    Instrument& in = *a.in;
    const std::int64_t ts = decoder_.accept(a.p);
    if (ts > e.now) e.now = ts;
    ++e.n_events;
    in.has_book = true;
    in.in_snapshot = false;
    if (in.book.top_raised | in.crossed | (in.book.deep_change != 0)) finish(in, a, ts);
  }

  void finish(Instrument& in, const Ahead& a, std::int64_t ts) {
    if (crosses(in)) [[unlikely]]
      report(in, a);
    else
      in.alarmed = false;
    if (in.book.deep_change == 0) return;
    Event e{};
    e.ts_event = ts, e.ts_recv = NULL_TS, e.seq = decoder_.messages;
    engine_.emit_changes(in, e);
  }

  // May be wrong about prices at the ends of 64 bits, which check_crossed() then puts right: an empty side shows a
  // guard.
  static bool crosses(Instrument& in) noexcept {
    in.book.top_raised = in.crossed = false;
    return to_px(false, in.book.side[0].end()[-1].key) >= to_px(true, in.book.side[1].end()[-1].key);
  }

  // A crossed book is a finding, and findings carry the whole event.
  [[gnu::noinline]] void report(Instrument& in, const Ahead& a) {
    Event e{};
    decoder_.reread(ItchDecoder::Message{a.p, TYPES[*a.p].length}, e);
    engine_.check_crossed(in, e);
  }

  // ---- the long way ------------------------------------------------------------------------------------------------

  // The next message whatever its framing; false at the end, or in front of a message that is not whole.
  bool one(std::size_t& offset) {
    const std::uint64_t begin = engine_.clock_ ? engine_.clock_->ticks() : 0;
    if (!alone(offset) && !framed(offset)) return false;
    if (engine_.clock_) engine_.histogram.add(engine_.clock_->to_ns(engine_.clock_->ticks() - begin));
    return true;
  }

  // A plain message by the short way, without a look ahead: the last ones of a buffer, and each one of a live feed.
  bool alone(std::size_t& offset) {
    if (!short_ || !decoder_.plain() || size_ - offset < 3) return false;
    const std::uint8_t* p = data_ + offset + 2;
    const std::size_t length = be16(p - 2);
    const Type type = TYPES[*p];
    if (type.kind == Kind::OTHER || length != type.length || size_ - offset - 2 < length) return false;
    Ahead a{};
    a.p = p;
    a.kind = type.kind;
    a.in = engine_.find(be16(p + LOCATE_AT));
    a.ref = be64(p + REF_AT);
    if (a.in == nullptr) return false;
    version_ = ~store_.index().version();  // nothing was worked out ahead
    a.at = NO_PLACE;
    apply(a);
    offset += 2 + length;
    return true;
  }

  bool framed(std::size_t& offset) {
    ItchDecoder::Message m{};
    const std::uint64_t trailing = decoder_.trailing;
    if (decoder_.next(data_, size_, offset, m) != ItchDecoder::Frame::MESSAGE) {
      engine_.count(Integrity::trailing, decoder_.trailing - trailing, ALL_INSTRUMENTS);
      return false;
    }
    whole(m);
    return true;
  }

  [[gnu::noinline]] void whole(ItchDecoder::Message m) {
    Event e{};
    switch (decoder_.message(m, decoder_.messages + 1, NULL_TS, e)) {
      case ItchDecoder::Outcome::EVENT: engine_.apply(e); break;
      case ItchDecoder::Outcome::NO_EVENT: break;
      case ItchDecoder::Outcome::MALFORMED: engine_.bad_message(Integrity::malformed, decoder_, m); break;
      case ItchDecoder::Outcome::UNKNOWN_TYPE: engine_.bad_message(Integrity::unknown_type, decoder_, m); break;
    }
  }

  Engine& engine_;
  BookStore& store_;
  ItchDecoder& decoder_;
  const std::uint8_t* data_;
  std::size_t size_;
  bool short_;                 // nothing is wanted of an event but its book and what changed at the best levels
  std::uint32_t version_ = 0;  // of the group that is being applied
};

std::size_t Engine::run_itch(ItchDecoder& decoder, const std::uint8_t* data, std::size_t size, std::size_t offset,
                             std::uint64_t max_messages) {
  return ItchRun(*this, decoder, data, size).run(offset, max_messages);
}

}  // namespace microrisk
