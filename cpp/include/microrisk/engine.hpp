// Books of many instruments, what is recorded about them (sinks), and the scoring stage that runs behind each event.
//
// One event travels: clock and staleness ticks -> book -> checks -> sinks -> feature kernel -> heads -> alert -> row.
// Nothing on that way allocates once its buffers have grown to the size of the stream.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "microrisk/book.hpp"
#include "microrisk/heads.hpp"
#include "microrisk/itch.hpp"
#include "microrisk/latency.hpp"
#include "microrisk/memory.hpp"
#include "microrisk/sinks.hpp"
#include "microrisk/spec.hpp"

namespace microrisk {

// int32 step(view, state, table, codes[32]); not zero when codes were produced.
using KernelFn = std::int32_t (*)(const View*, void*, const std::int8_t*, std::int8_t*);
// void step(heads[4], params, state, level[4], {alert, fresh})
using AlertFn = void (*)(const std::int32_t*, const void*, void*, std::int32_t*, std::uint8_t*);

inline constexpr std::uint32_t MAX_INSTRUMENTS = 1U << 20;
inline constexpr std::size_t MAX_FINDINGS = 10'000;

using Bytes = std::vector<std::uint8_t>;

// 8-byte aligned copy of a template, for state that foreign code reads and writes.
class StateBlock {
 public:
  void assign(const Bytes& from);
  void* data() noexcept { return words_.data(); }
  std::size_t size() const noexcept { return size_; }

 private:
  std::vector<std::uint64_t> words_;
  std::size_t size_ = 0;
};

// Which rows are kept: none, every one, or those in which a head went into alarm.
enum class RowsKept : std::uint8_t { NONE, ALL, FRESH };

struct Watch {
  KernelFn kernel = nullptr;
  AlertFn alert = nullptr;
  const Heads* heads = nullptr;
  const std::int8_t* table = nullptr;
  Bytes state, alert_params, alert_state;
  RowsKept rows = RowsKept::ALL;
  bool select = false;  // only chosen instruments have views, features and heads
};

// Quantities of the events since the last completed one.
struct Pending {
  std::int64_t add = 0, cancel = 0, trade = 0;
  std::int64_t px = 0;
  std::int8_t side = 0;
  bool posted = false;  // the last quantity was an add
};

// The first line of an instrument is all that a message touches of it, apart from the ladder.
struct alignas(64) Instrument {
  explicit Instrument(std::uint32_t index) { book.instrument = index; }

  Book book;
  TradingState state = TradingState::UNKNOWN;
  bool has_book = false;  // had a book-changing event
  bool changed = false;   // since the last completed event
  bool crossed = false;   // or locked, when it was last looked at
  bool alarmed = false;   // crossed in continuous trading, and told
  bool in_snapshot = false;
  bool suspect = false;
  Bbo last_bbo{};
  Pending pending;
  View view{};
  std::uint32_t ticks_left = 0;
  std::int64_t next_view = INT64_MIN;  // earliest time of the next recorded view
  std::uint64_t completed = 0;         // events
  std::array<std::uint64_t, N_INTEGRITY> integrity{};
  const std::int8_t* table = nullptr;
  Row last_row{};
  bool scored = false;  // last_row counts
  bool own = false;     // has a state and table of its own
  StateBlock state_block, alert_state;
  StateBlock alert_params;                // the instrument's own; empty = those of the watch
  std::vector<std::int64_t> depth_image;  // the last recorded one
  std::vector<std::int64_t> held_image;   // at the last complete event, while an incomplete one goes on
  Bbo held_row{};
  bool due = false;   // in the list of the next sample
  bool held = false;  // held_image counts
};

// Instruments side by side in large pages; they stay where they are.
class Instruments {
 public:
  Instruments() = default;
  Instruments(const Instruments&) = delete;
  Instruments& operator=(const Instruments&) = delete;
  ~Instruments();
  Instrument& make(std::uint32_t index);
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Chunk {
    Instrument* first;
    std::size_t used, room;
  };
  std::vector<Chunk> chunks_;
  std::size_t bytes_ = 0;
};

class Engine {
 public:
  Engine(bool always_open, std::size_t reserve_orders, std::size_t reserve_instruments);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void run_events(const Event* events, std::size_t n);
  std::size_t run_itch(ItchDecoder& decoder, const std::uint8_t* data, std::size_t size, std::size_t offset,
                       std::uint64_t max_messages);
  void finish();

  // Sinks and stages; only before the first event (std::logic_error).
  void record_bbo();
  void record_views(std::int64_t every_ns);
  void record_depth(std::size_t depth);
  // Depth at the multiples of `every_ns` of the core's clock, of instruments that changed since their last sample.
  void record_samples(std::size_t depth, std::int64_t every_ns);
  void record_prints();
  void record_deeds();
  void watch(Watch stage);
  void ticks(bool on);

  // `keep_state`: the state goes on, only table and parameters are bound (after load).
  void set_table(std::uint32_t instrument, const Bytes& state, const std::int8_t* table, const Bytes& alert_params,
                 bool keep_state = false);
  // Of a stage that selects: begins with a fresh state, or ends, the scoring of one instrument.
  void watch_instrument(std::uint32_t instrument, bool on);
  bool watched(std::uint32_t instrument) const noexcept;
  void record_trades() noexcept { trades_on_ = true; }
  // The time is `to`: what the next message would have caused by its time alone.
  void run_clock(std::int64_t to);
  // Marks a book, or every known one (ALL_INSTRUMENTS), as not to be trusted.
  void doubt(std::uint32_t instrument) noexcept;
  // A new session: trading states are not known.
  void forget_states() noexcept;
  // Everything that decides the future of books, marks, counts, views and states; what sinks hold is not part of it.
  // load: into an engine without events, with the same stage; std::invalid_argument says what is wrong with the bytes.
  Bytes save() const;
  void load(const std::uint8_t* data, std::size_t size);
  void latency(bool on);
  // Whether run_itch looks at messages ahead (it does unless told otherwise); for measuring what that is worth.
  void look_ahead(bool on) noexcept { look_ahead_ = on; }
  void count(Integrity kind, std::uint64_t n, std::uint32_t instrument);
  void reset_book(std::uint32_t instrument);

  Instrument* find(std::uint32_t index) const noexcept { return index < table_.size() ? table_[index] : nullptr; }
  const BookStore& store() const noexcept { return store_; }
  std::size_t instrument_bytes() const noexcept { return pool_.bytes() + table_.capacity() * sizeof(Instrument*); }
  // In rising order of index.
  const std::vector<Instrument*>& instruments() const noexcept { return sorted_; }
  // Fills `depth` levels a side, (px, qty), NULL_PX and 0 beyond the last.
  void levels(const Instrument& in, std::size_t depth, std::int64_t* out) const noexcept;

  Arena<Bbo> bbo, depth_rows;
  Arena<std::int64_t> depth_levels, sample_times;  // sample_times: of each depth row, when sampling
  Arena<Print> prints;
  Arena<Deed> deeds;
  Arena<View> views;
  Arena<Row> rows;
  Arena<Trade> trades;
  Arena<Crossing> crossings;  // of engines that keep trades too
  Arena<Finding> findings;
  Histogram histogram;
  std::array<std::uint64_t, N_INTEGRITY> integrity{};
  std::uint64_t n_events = 0;
  std::int64_t now = NULL_TS;
  std::uint64_t growths = 0;
  std::size_t depth() const noexcept { return depth_; }
  bool started() const noexcept { return started_; }

 private:
  friend class ItchRun;
  friend class EngineState;
  friend class LiveFeed;

  void apply(const Event& e);
  void advance(std::int64_t to);
  void broadcast(const Event& e);
  void dispatch(Instrument& in, const Event& e);
  void add(Instrument& in, const Event& e);
  void modify(Instrument& in, const Event& e);
  void modify_order(Instrument& in, const Event& e, Handle h, bool ask);
  void modify_level(Instrument& in, const Event& e);
  void reduce(Instrument& in, const Event& e);
  void remove(Instrument& in, const Event& e);
  void replace(Instrument& in, const Event& e);
  void clear(Instrument& in);
  void trade(Instrument& in, const Event& e);
  void set_state(Instrument& in, const Event& e);
  void note_trade(Instrument& in, const Event& e) const noexcept;

  bool post(Instrument& in, const Event& e, bool ask, std::int64_t px, std::uint64_t id, std::int64_t qty);
  void applied(Instrument& in, const Event& e) noexcept;
  void complete(Instrument& in, const Event& e);
  void check_crossed(Instrument& in, const Event& e);
  void level_side(const Instrument& in, bool ask, std::size_t depth, std::int64_t* out) const noexcept;
  void emit_changes(Instrument& in, const Event& e);
  void emit_bbo(Instrument& in, const Event& e);
  void emit_depth(Instrument& in, const Event& e);
  void emit_samples(std::int64_t to);
  void emit_sample(Instrument& in);
  void due_sample(Instrument& in);
  void before(Instrument& in, const Event& e);
  void hold(Instrument& in);
  void emit_view(Instrument& in);
  void emit_ticks(std::int64_t to);
  void emit_tick(Instrument& in, std::int64_t time);
  void score(Instrument& in);
  void report(Integrity kind, Instrument& in, const Event& e);
  void tally(Integrity kind, std::uint64_t n, Instrument* in, const Finding& finding);
  void bad_message(Integrity kind, const ItchDecoder& decoder, ItchDecoder::Message m);
  void require_fresh() const;
  void track();
  Instrument& at(std::uint32_t index);
  void equip(Instrument& in);
  void show(Instrument& in);

  BookStore store_;
  std::vector<Instrument*> table_;
  Instruments pool_;
  std::vector<Instrument*> sorted_;   // by index
  std::vector<Instrument*> ticking_;  // with ticks left
  Watch watch_;
  std::unique_ptr<CycleClock> clock_;
  std::size_t depth_ = 0;
  std::int64_t every_ns_ = 0;
  std::int64_t next_tick_ = INT64_MAX;
  TradingState first_state_;
  std::int64_t sample_ns_ = 0, next_sample_ = INT64_MIN;
  std::vector<Instrument*> due_;
  bool prints_on_ = false, deeds_on_ = false;
  bool before_on_ = false;  // something is to be done in front of each event
  bool bbo_on_ = false, views_on_ = false, tracked_ = false, ticks_on_ = false, started_ = false;
  bool ticking_sorted_ = true;
  bool look_ahead_ = true;
  bool trades_on_ = false;
};

}  // namespace microrisk
