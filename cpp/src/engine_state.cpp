// Engine::save and load: the state that decides the future, as bytes of this build.
//
//   "MRES" | version u32 | ABI_HASH | engine | instruments: number u64, then each | "END."
//
// Records are stored as they lie in memory (ABI_HASH covers their layout). Of each side the levels come worst first: a
// ladder grows at its best end. Every length is checked against what is there; nothing that was read is trusted.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "microrisk/engine.hpp"

namespace microrisk {

namespace {

constexpr std::uint32_t VERSION = 2, MAGIC = 0x5345524D, END = 0x2E444E45;

class Writer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* p = reinterpret_cast<const std::uint8_t*>(&value);
    out.insert(out.end(), p, p + sizeof(T));
  }
  void block(const void* data, std::size_t size) {
    put(static_cast<std::uint64_t>(size));
    const auto* p = static_cast<const std::uint8_t*>(data);
    if (size > 0) out.insert(out.end(), p, p + size);
  }
  Bytes out;
};

class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : p_(data), left_(size) {}

  template <class T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    need(sizeof(T));
    std::memcpy(&value, p_, sizeof(T));
    skip(sizeof(T));
    return value;
  }
  bool flag() {
    const auto b = get<std::uint8_t>();
    if (b > 1) bad("a flag is neither 0 nor 1");
    return b == 1;
  }
  Bytes block() {
    const auto size = get<std::uint64_t>();
    need(size);
    Bytes out(p_, p_ + size);
    skip(size);
    return out;
  }
  // A number of things that take at least `each` bytes.
  std::uint64_t count(std::size_t each) {
    const auto n = get<std::uint64_t>();
    if (n > left_ / each) bad("more entries than bytes");
    return n;
  }
  [[noreturn]] static void bad(const char* why) { throw std::invalid_argument(std::string("engine state: ") + why); }
  std::size_t left() const noexcept { return left_; }

 private:
  void need(std::uint64_t n) const {
    if (n > left_) bad("it is cut");
  }
  void skip(std::uint64_t n) noexcept { p_ += n, left_ -= n; }

  const std::uint8_t* p_;
  std::size_t left_;
};

}  // namespace

class EngineState {
 public:
  explicit EngineState(Engine& engine) : e_(engine) {}

  void save(Writer& w) const {
    w.put(MAGIC), w.put(VERSION);
    w.block(ABI_HASH, std::strlen(ABI_HASH));
    w.put(e_.now), w.put(e_.next_tick_), w.put(e_.n_events);
    w.put(e_.first_state_), w.put(e_.integrity);
    w.put(static_cast<std::uint8_t>(e_.started_));
    w.put(static_cast<std::uint64_t>(e_.sorted_.size()));
    for (const Instrument* in : e_.sorted_) save(w, *in);
    w.put(END);
  }

  void load(Reader& r) {
    if (r.get<std::uint32_t>() != MAGIC) Reader::bad("it does not begin as one");
    if (r.get<std::uint32_t>() != VERSION) Reader::bad("another version");
    const Bytes abi = r.block();
    if (std::string(abi.begin(), abi.end()) != ABI_HASH) Reader::bad("another build's records");
    e_.now = r.get<std::int64_t>(), e_.next_tick_ = r.get<std::int64_t>(), e_.n_events = r.get<std::uint64_t>();
    e_.first_state_ = state(r);
    e_.integrity = r.get<decltype(e_.integrity)>();
    const bool started = r.flag();
    for (std::uint64_t n = r.count(64); n > 0; --n) load_instrument(r);
    if (r.get<std::uint32_t>() != END || r.left() > 0) Reader::bad("it does not end where it should");
    e_.started_ = started;
  }

 private:
  static TradingState state(Reader& r) {
    const auto value = r.get<std::uint8_t>();
    if (value > static_cast<std::uint8_t>(TradingState::ALWAYS)) Reader::bad("an unknown trading state");
    return static_cast<TradingState>(value);
  }

  void save(Writer& w, const Instrument& in) const {
    w.put(in.book.instrument);
    w.put(static_cast<std::uint8_t>(in.state));
    for (const bool b : {in.has_book, in.changed, in.crossed, in.alarmed, in.in_snapshot, in.suspect,
                         in.book.top_raised, in.scored, in.book.view != nullptr})
      w.put(static_cast<std::uint8_t>(b));
    w.put(in.pending.add), w.put(in.pending.cancel), w.put(in.pending.trade), w.put(in.pending.px);
    w.put(in.pending.side), w.put(static_cast<std::uint8_t>(in.pending.posted));
    w.put(in.view), w.put(in.last_row), w.put(in.ticks_left), w.put(in.completed), w.put(in.integrity);
    w.block(const_cast<StateBlock&>(in.state_block).data(), in.state_block.size());
    w.block(const_cast<StateBlock&>(in.alert_state).data(), in.alert_state.size());
    for (const bool ask : {false, true}) save_side(w, in.book.side[ask]);
  }

  void save_side(Writer& w, const Ladder& ladder) const {
    w.put(static_cast<std::uint64_t>(ladder.size()));
    for (std::size_t i = 0; i < ladder.size(); ++i) {
      const Level& level = e_.store_.level(ladder.rung(i).level);
      w.put(level.key), w.put(static_cast<std::uint64_t>(level.orders));
      if (level.orders == 0) w.put(level.qty);
      Handle o = level.head;
      for (std::uint32_t n = level.orders; n > 0; --n) {
        const Order& order = e_.store_.order(o);
        w.put(order.id), w.put(order.qty);
        o = order.next;
      }
    }
  }

  void load_instrument(Reader& r) {
    const auto index = r.get<std::uint32_t>();
    if (index >= MAX_INSTRUMENTS) Reader::bad("an instrument number beyond the last");
    Instrument& in = e_.at(index);
    if (in.has_book || in.completed > 0) Reader::bad("an instrument twice");
    in.state = state(r);
    in.has_book = r.flag(), in.changed = r.flag(), in.crossed = r.flag(), in.alarmed = r.flag();
    in.in_snapshot = r.flag(), in.suspect = r.flag();
    const bool raised = r.flag();
    in.scored = r.flag();
    const bool watched = r.flag();
    in.pending.add = r.get<std::int64_t>(), in.pending.cancel = r.get<std::int64_t>();
    in.pending.trade = r.get<std::int64_t>(), in.pending.px = r.get<std::int64_t>();
    in.pending.side = r.get<std::int8_t>(), in.pending.posted = r.flag();
    const View view = r.get<View>();
    in.last_row = r.get<Row>(), in.ticks_left = r.get<std::uint32_t>(), in.completed = r.get<std::uint64_t>();
    in.integrity = r.get<decltype(in.integrity)>();
    load_blocks(r, in, watched);
    in.book.view = nullptr;
    for (const bool ask : {false, true}) load_side(r, in, ask);
    in.book.top_raised = raised;
    in.view = view;
    in.view.instrument = index;
    if (watched) show(in);
  }

  void load_blocks(Reader& r, Instrument& in, bool watched) const {
    const Bytes kernel = r.block(), alert = r.block();
    if (watched && (kernel.size() != e_.watch_.state.size() || alert.size() != e_.watch_.alert_state.size()))
      Reader::bad("it was scored by another stage");
    in.state_block.assign(kernel);
    in.alert_state.assign(alert);
  }

  void show(Instrument& in) {
    if (!e_.tracked_) Reader::bad("it was scored, this engine has no stage");
    e_.show(in);
    if (in.ticks_left > 0 && e_.ticks_on_) {
      e_.ticking_.push_back(&in);
      e_.ticking_sorted_ = false;
    }
  }

  void load_side(Reader& r, Instrument& in, bool ask) {
    for (std::uint64_t n = r.count(16); n > 0; --n) {
      const auto px = to_px(ask, r.get<std::int64_t>());
      std::uint64_t orders = r.count(0 + 1);
      std::int64_t before = 0;
      if (orders == 0 && !e_.store_.set_level(in.book, ask, px, r.get<std::int64_t>(), before))
        Reader::bad("a level of two kinds");
      for (; orders > 0; --orders) {
        const auto id = r.get<std::uint64_t>();
        const auto qty = r.get<std::int64_t>();
        if (qty <= 0 || e_.store_.find(in.book.instrument, id) != NO_HANDLE ||
            !e_.store_.add(in.book, ask, px, id, qty))
          Reader::bad("an order that a book cannot hold");
      }
    }
  }

  Engine& e_;
};

Bytes Engine::save() const {
  Writer w;
  w.out.reserve(64 * store_.live_orders() / 4 + 2048 * sorted_.size());
  EngineState(const_cast<Engine&>(*this)).save(w);
  return std::move(w.out);
}

void Engine::load(const std::uint8_t* data, std::size_t size) {
  if (started_ || store_.live_orders() > 0) throw std::logic_error("a state is loaded before the first event");
  Reader r(data, size);
  EngineState(*this).load(r);
}

}  // namespace microrisk
