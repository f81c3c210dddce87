// libFuzzer target: any sequence of events, applied to the engine and to the naive book, compared all along.
//
// Six bytes choose sinks, the scheme of order ids, the grid of prices and how many events one call brings. Then each
// operation is a byte (action, instrument, two options) and a few bytes for its fields; small numbers are ordinary
// values that meet one another, the highest ones are extremes. Two operations enter or withdraw many orders at once.
#include "compare.hpp"

namespace {

using namespace fuzz;

constexpr std::size_t MAX_EVENTS = 4000;
constexpr std::int64_t LOWEST = INT64_MIN, HIGHEST = INT64_MAX;

class Script {
 public:
  Script(Input in, Pair& pair) : in_(in), pair_(pair) {
    id_scheme_ = in_.byte();
    grid_ = pick({std::int64_t{1}, std::int64_t{100}, std::int64_t{1'000'000'000}, std::int64_t{1} << 52}, in_.byte());
    batch_ = 1 + in_.byte() % 24U;
  }

  void run() {
    while (!in_.empty() && sent_ < MAX_EVENTS) step();
    flush();
    pair_.finish();
  }

 private:
  enum : std::uint8_t { FLOOD = 11, DRAIN = 12, COUNT = 13, RESET = 14, MARKET = 15 };

  void step() {
    const std::uint8_t op = in_.byte();
    Event e = blank(op);
    switch (op & 15U) {
      case FLOOD: return flood(e);
      case DRAIN: return drain(e);
      case COUNT: return count(e.instrument);
      case RESET:
        flush();
        pair_.engine.reset_book(e.instrument), pair_.naive.reset_book(e.instrument);
        return;
      case MARKET: return market(e);
      default: return single(e, op);
    }
  }

  Event blank(std::uint8_t op) {
    static constexpr std::uint32_t near[] = {1, 2, 1, 7};
    Event e{};
    e.action = op & 15U;
    e.instrument = pick(near, op >> 4);
    e.flags = flag::LAST;
    e.ts_recv = microrisk::NULL_TS;
    e.side = side::BID;
    return e;
  }

  void single(Event e, std::uint8_t op) {
    const std::uint8_t how = in_.byte();
    e.side = (how & 1) != 0 ? side::ASK : side::BID;
    e.order_id = order_id(in_.byte(), e.action == 1);
    e.px = price(in_.byte(), e);
    e.qty = quantity(in_.byte(), e);
    if (e.action == 5) e.ref = order_id(in_.byte(), true);
    if (e.action == 8) e.ref = in_.byte() % 8U;
    if ((op & 64) != 0) e.flags = static_cast<std::uint8_t>(in_.byte() ^ flag::LAST);
    if ((op & 128) != 0) damage(e);
    time(e, how);
    send(e);
  }

  // ---- fields ------------------------------------------------------------------------------------------------------

  std::uint64_t fresh() {
    const std::uint64_t gap = id_scheme_ >> 3;
    const std::uint64_t n = next_ += 1 + gap * gap;
    switch (id_scheme_ & 7U) {
      case 0: return n;
      case 1: return n * 8;
      case 2: return n * 1024;
      case 3: return n << 20;
      case 4: return n << 32;
      case 5: return n * 0x9E3779B97F4A7C15ULL;
      case 6: return UINT64_MAX - n;
      default: return 1 + n % 12;
    }
  }

  std::uint64_t order_id(std::uint8_t v, bool is_new) {
    static constexpr std::uint64_t odd[] = {0,          1,          2,          1ULL << 31,     1ULL << 32,
                                            UINT32_MAX, 1ULL << 63, UINT64_MAX, UINT64_MAX - 1, 0x0123456789ABCDEF};
    if (v >= 0xF0) return pick(odd, v);
    const bool known = !ids_.empty() && (is_new ? v >= 0xC0 : v < 0xD0);
    const std::uint64_t id = known ? ids_[ids_.size() - 1 - v % ids_.size()] : fresh();
    if (is_new) ids_.push_back(id);
    return id;
  }

  // Mostly bids below 1000 and asks above, some that lock or cross; 0xFE is where the order rests already.
  std::int64_t price(std::uint8_t v, Event& e) {
    static constexpr std::int64_t odd[] = {0, -7, LOWEST, LOWEST + 1, HIGHEST, HIGHEST - 1, -1, 0};
    if (v == 0xFE) return own(e).px;
    if (v >= 0xF0) return pick(odd, v);
    const std::int64_t step = v >> 1, away = (v & 1) == 0 ? 1 + step : -(step % 4);
    return grid_ * (1000 + (e.side == side::ASK ? away : -away));
  }

  std::int64_t quantity(std::uint8_t v, Event& e) {
    static constexpr std::int64_t odd[] = {-1,          1LL << 62, 1LL << 62, HIGHEST, LOWEST,
                                           HIGHEST - 1, 1LL << 61, 0,         0,       LOWEST + 1};
    if (v >= 0xF4 && v < 0xFD) return pick(odd, v);
    if (v >= 0xFD) return held(e) + (v - 0xFE);
    return v % 60;
  }

  // Side and price of the resting order; side of the event when there is none.
  NaiveBook::Place own(Event& e) {
    const auto book = pair_.naive.books.find(e.instrument);
    if (book == pair_.naive.books.end()) return {e.side, grid_};
    const auto place = book->second.places.find(e.order_id);
    if (place == book->second.places.end()) return {e.side, grid_};
    e.side = static_cast<std::int8_t>(place->second.side);
    return place->second;
  }
  std::int64_t held(const Event& e) const {
    const auto book = pair_.naive.books.find(e.instrument);
    if (book == pair_.naive.books.end() || !book->second.places.contains(e.order_id)) return 1;
    const std::int64_t qty = book->second.order(e.order_id).qty;
    return qty < HIGHEST ? qty : 1;
  }

  void damage(Event& e) {
    static constexpr std::uint32_t far[] = {0, INSTRUMENTS - 1, INSTRUMENTS, EVERY_INSTRUMENT, 65535};
    const std::uint8_t v = in_.byte();
    switch (v & 7U) {
      case 0: e.side = static_cast<std::int8_t>(in_.byte()); break;
      case 1: e.action = in_.byte(); break;
      case 2: e.instrument = pick(far, v >> 3); break;
      case 3: e.order_id = 0; break;
      case 4: e.ref = v >> 3; break;
      case 5: jump_ = pick({LOWEST, LOWEST + 1, HIGHEST, HIGHEST - 1, std::int64_t{0}, LAST_TICK}, v >> 3); break;
      case 6: e.ref = UINT64_MAX; break;
      default: e.side = side::NONE; break;
    }
  }

  void time(Event& e, std::uint8_t how) {
    constexpr std::int64_t tick = microrisk::TICK_NS;
    static constexpr std::int64_t steps[] = {1, 700, tick / 5, tick, 3 * tick, 12'000'000'000, -5, 0};
    now_ += pick(steps, how >> 1);
    if (now_ % 5 == 0) now_ -= now_ % (tick / 5);  // on the grid, exactly
    e.ts_event = now_;
    if ((how & 16) != 0) e.ts_recv = now_ + (how >> 5);
    if (jump_ != 1) (how & 32) != 0 ? e.ts_recv = jump_ : e.ts_event = jump_;
    jump_ = 1;
    e.seq = ++seq_;
  }

  // ---- more than one event -----------------------------------------------------------------------------------------

  void flood(Event e) {
    const unsigned n = in_.byte(), how = in_.byte(), start = in_.byte();
    e.action = 1;
    e.side = (how & 1) != 0 ? side::ASK : side::BID;
    for (unsigned i = 0; i < n && sent_ < MAX_EVENTS; ++i) {
      e.order_id = order_id(0, true);
      const std::int64_t away = 1 + static_cast<std::int64_t>((start + i * (how >> 5)) % 512);
      e.px = grid_ * (1000 + (e.side == side::ASK ? away : -away));
      e.qty = 1 + i % 7;
      e.flags = (how & 2) != 0 ? flag::SNAPSHOT : flag::LAST;
      if ((how & 4) != 0) e.action = 2, e.order_id = 0;  // levels, not orders
      time(e, 0);
      send(e);
    }
  }

  void drain(Event e) {
    const unsigned n = in_.byte(), how = in_.byte();
    e.action = (how & 2) != 0 ? 3 : 4;
    for (unsigned i = 0; i < n && !ids_.empty() && sent_ < MAX_EVENTS; ++i) {
      const std::size_t at = (how & 1) != 0 ? ids_.size() - 1 : (how & 4) != 0 ? n * 7 % ids_.size() : 0;
      e.order_id = ids_[at];
      ids_.erase(ids_.begin() + static_cast<std::ptrdiff_t>(at));
      e.qty = held(e);
      time(e, 0);
      send(e);
    }
  }

  void count(std::uint32_t instrument) {
    flush();
    const std::uint8_t which = in_.byte(), n = in_.byte();
    const auto kind = which > 200 ? Integrity::gap : static_cast<Integrity>(which % microrisk::N_INTEGRITY);
    const std::uint32_t where = n > 200 ? EVERY_INSTRUMENT : instrument;
    pair_.engine.count(kind, n % 5, where);
    pair_.naive.count(kind, n % 5, where);
    pair_.compare();
  }

  void market(Event e) {
    e.action = 8;
    e.instrument = EVERY_INSTRUMENT;
    e.ref = in_.byte() % 8U;
    time(e, 0);
    send(e);
  }

  void send(const Event& e) {
    ++sent_;
    events_.push_back(e);
    pair_.naive.apply(e);
    if (events_.size() >= batch_) flush();
  }

  void flush() {
    if (events_.empty()) return;
    const std::unique_ptr<Event[]> block(new Event[events_.size()]);
    std::memcpy(block.get(), events_.data(), events_.size() * sizeof(Event));
    pair_.engine.run_events(block.get(), events_.size());
    events_.clear();
    pair_.compare();
  }

  Input in_;
  Pair& pair_;
  std::uint8_t id_scheme_ = 0;
  std::int64_t grid_ = 1, now_ = 1'700'000'000'000'000'000, jump_ = 1;
  std::size_t batch_ = 1, sent_ = 0;
  std::uint64_t next_ = 0, seq_ = 0;
  std::vector<std::uint64_t> ids_;
  std::vector<Event> events_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  const std::uint8_t bits = in.byte(), more = in.byte();
  fuzz::Pair pair(fuzz::Setup::from(bits, more));
  Script(in, pair).run();
  return 0;
}
