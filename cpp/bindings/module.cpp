// microrisk._core: arrays in, arrays out. What the parts do is written in the headers; here only types are checked,
// buffers held and the interpreter lock released.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "arrays.hpp"
#include "engine_object.hpp"
#include "feeds.hpp"
#include "live.hpp"
#include "microrisk/engine.hpp"
#include "paced.hpp"
#include "sinks.hpp"

namespace py = pybind11;
using namespace microrisk;

namespace {

// Events that are applied without giving the interpreter lock away: they take less time than getting it back would.
constexpr std::size_t kFewEvents = 16;

Bytes bytes_of(const py::bytes& b) {
  const auto view = static_cast<std::string_view>(b);
  return Bytes(view.begin(), view.end());
}

const std::int8_t* table_of(const py::array& table) {
  if (!py::isinstance<py::array_t<std::int8_t>>(table) || !(table.flags() & py::array::c_style) || table.ndim() != 2 ||
      table.shape(0) != static_cast<py::ssize_t>(N_FEATURES) || static_cast<std::size_t>(table.size()) != TABLE_BYTES) {
    throw py::value_error("table must be a contiguous int8 array of shape (" + std::to_string(N_FEATURES) + ", " +
                          std::to_string(TABLE_BYTES / N_FEATURES) + ")");
  }
  return static_cast<const std::int8_t*>(table.data());
}

template <class F>
F function_at(std::uintptr_t address) {
  return reinterpret_cast<F>(address);
}

// ---- heads ---------------------------------------------------------------------------------------------------------

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string out = "(";
  for (const std::size_t n : shape) out.append(out.size() > 1 ? ", " : "").append(std::to_string(n));
  return out.append(")");
}

// A tensor of the weight file, checked; kept in `held` while its pointer is used.
template <class T>
const T* tensor(const py::dict& tensors, const std::string& name, const std::vector<std::size_t>& shape,
                std::vector<py::array>& held) {
  if (!tensors.contains(name.c_str())) raise("WeightFileError", "tensor " + name + " is missing");
  py::object value = tensors[name.c_str()];
  bool fits = py::isinstance<py::array_t<T>>(value);
  if (fits) {
    held.push_back(py::array_t<T, py::array::c_style>::ensure(value));
    const py::array& a = held.back();
    fits = static_cast<std::size_t>(a.ndim()) == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) {
      fits = static_cast<std::size_t>(a.shape(static_cast<py::ssize_t>(i))) == shape[i];
    }
  }
  if (!fits) {
    raise("WeightFileError",
          "tensor " + name + " must be " + std::string(py::str(py::dtype::of<T>())) + " of shape " + shape_text(shape));
  }
  return static_cast<const T*>(held.back().data());
}

std::shared_ptr<Heads> make_heads(const py::dict& tensors, std::uint32_t mask) {
  std::vector<py::array> held;
  std::array<LayerWeights, N_LAYERS> layers{};
  for (std::size_t n = 0; n < N_LAYERS; ++n) {
    const LayerShape& s = LAYERS[n];
    const std::string name = s.name;
    layers[n] = LayerWeights{tensor<std::int8_t>(tensors, name + ".weight", {s.out, s.in}, held),
                             tensor<std::int32_t>(tensors, name + ".bias", {s.out}, held),
                             tensor<std::uint8_t>(tensors, name + ".shift", {s.out}, held)};
  }
  const auto* residual = tensor<std::uint8_t>(tensors, "vae.residual_exp", {N_FEATURES}, held);
  const auto* latent = tensor<std::uint8_t>(tensors, "vae.latent_exp", {1}, held);
  try {
    return std::make_shared<Heads>(layers, residual, *latent, mask);
  } catch (const std::invalid_argument& e) {
    raise("WeightFileError", e.what());
  }
}

py::array_t<std::int32_t> score_batch(const Heads& heads, const py::array& codes) {
  if (!py::isinstance<py::array_t<std::int8_t>>(codes) || codes.ndim() != 2 ||
      codes.shape(1) != static_cast<py::ssize_t>(N_FEATURES)) {
    throw py::value_error("codes must be an int8 array of shape (n, " + std::to_string(N_FEATURES) + ")");
  }
  const auto in = py::array_t<std::int8_t, py::array::c_style>::ensure(codes);
  const auto n = static_cast<std::size_t>(in.shape(0));
  py::array_t<std::int32_t> out({in.shape(0), static_cast<py::ssize_t>(N_HEADS)});
  const std::int8_t* from = in.data();
  std::int32_t* to = out.mutable_data();
  py::gil_scoped_release release;
  for (std::size_t i = 0; i < n; ++i) heads.score(from + i * N_FEATURES, to + i * N_HEADS);
  return out;
}

// ---- decoder -------------------------------------------------------------------------------------------------------

py::tuple decode(ItchDecoder& decoder, const py::object& data, std::size_t offset, const py::array& out) {
  const Buffer buffer(data);
  offset = checked_offset(buffer, offset);
  Event* to = records_of<Event>(out, "EVENT", true);
  const auto room = static_cast<std::size_t>(out.shape(0));
  std::size_t n = 0;
  {
    py::gil_scoped_release release;
    ItchDecoder::Message m{};
    while (n < room && decoder.next(buffer.data(), buffer.size(), offset, m) == ItchDecoder::Frame::MESSAGE) {
      if (decoder.message(m, decoder.messages + 1, NULL_TS, to[n]) == ItchDecoder::Outcome::EVENT) ++n;
    }
  }
  return py::make_tuple(n, offset);
}

std::size_t decode_one(ItchDecoder& decoder, const py::object& data, std::uint64_t seq, std::int64_t ts_recv,
                       const py::array& out) {
  const Buffer buffer(data);
  Event* to = records_of<Event>(out, "EVENT", true);
  if (out.shape(0) < 1) throw py::value_error("the output array has no room");
  const ItchDecoder::Message m{buffer.data(), buffer.size()};
  return decoder.message(m, seq, ts_recv, *to) == ItchDecoder::Outcome::EVENT ? 1 : 0;
}

py::dict symbols(const ItchDecoder& decoder) {
  py::dict out;
  const auto& known = decoder.symbols();
  for (std::size_t locate = 0; locate < known.size(); ++locate) {
    std::string_view text(known[locate].data(), known[locate].size());
    if (text == std::string_view("\0\0\0\0\0\0\0\0", 8)) continue;
    text = text.substr(0, text.find_last_not_of(' ') + 1);
    out[py::int_(locate)] = py::reinterpret_steal<py::str>(
        PyUnicode_DecodeLatin1(text.data(), static_cast<py::ssize_t>(text.size()), nullptr));
  }
  return out;
}

py::dict counts(const ItchDecoder& decoder) {
  py::dict out;
  for (std::size_t code = 0; code < 256; ++code) {
    if (const std::uint64_t n = decoder.counts()[code]; n > 0)
      out[py::str(std::string(1, static_cast<char>(code)))] = n;
  }
  return out;
}

// ---- engine --------------------------------------------------------------------------------------------------------

void watch(PyEngine& self, std::uintptr_t kernel, const py::bytes& state, const py::array& table,
           std::shared_ptr<Heads> heads, std::uintptr_t alert, const py::bytes& alert_params,
           const py::bytes& alert_state, int rows, bool select) {
  if (rows < 0 || rows > 2) throw py::value_error("rows is 0 (none), 1 (all) or 2 (only those that begin an alarm)");
  if (kernel == 0) throw py::value_error("kernel address 0");
  Watch stage;
  stage.kernel = function_at<KernelFn>(kernel);
  stage.alert = function_at<AlertFn>(alert);
  stage.heads = heads.get();
  stage.table = table_of(table);
  stage.state = bytes_of(state);
  stage.alert_params = bytes_of(alert_params);
  stage.alert_state = bytes_of(alert_state);
  stage.rows = static_cast<RowsKept>(rows);
  stage.select = select;
  self.idle().watch(std::move(stage));
  self.heads = std::move(heads);
  self.table = table;
}

py::object last_row(const Engine& engine, std::uint32_t i) {
  const Instrument* in = engine.find(i);
  if (in == nullptr || !in->scored) return py::none();
  py::array out(record("ROW"), std::vector<py::ssize_t>{1});
  std::memcpy(out.mutable_data(), &in->last_row, sizeof(Row));
  return out[py::int_(0)];
}

py::array_t<std::uint64_t> event_counts(const Engine& engine) {
  std::vector<std::uint64_t> out;
  for (const Instrument* in : engine.instruments())
    if (in->has_book) out.push_back(in->completed);
  return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(out.size()), out.data());
}

py::bytes saved(const Engine& engine) {
  const Bytes out = engine.save();
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

void loaded(Engine& engine, const py::object& data) {
  const Buffer buffer(data);
  try {
    engine.load(buffer.data(), buffer.size());
  } catch (const std::invalid_argument& e) {
    raise("JournalError", e.what());
  }
}

// What a live monitor asks of an engine.
void bind_live_engine(py::class_<PyEngine>& c) {
  using py::arg;
  using Self = PyEngine&;
  c.def(
      "watch_instrument", [](Self s, std::uint32_t i, bool on) { s.idle().watch_instrument(i, on); }, arg("instrument"),
      arg("on"));
  c.def("last_row", [](Self s, std::uint32_t i) { return last_row(s.idle(), i); }, arg("instrument"));
  c.def("event_counts", [](Self s) { return event_counts(s.idle()); });
  c.def("record_trades", [](Self s) { s.idle().record_trades(); });
  c.def(
      "events_of",
      [](Self s, std::uint32_t i) {
        const Instrument* in = s.idle().find(i);
        return in == nullptr ? 0 : in->completed;
      },
      arg("instrument"));
  c.def_property_readonly(
      "kept", [](Self s) { return s.idle().rows.size() + s.idle().trades.size() + s.idle().crossings.size(); });
  c.def("take_trades", [](Self s) { return take(s.idle().trades, "TRADE"); });
  c.def("take_crossings", [](Self s) { return take(s.idle().crossings, "CROSSING"); });
  c.def(
      "run_clock",
      [](Self s, std::int64_t ts) {
        const Run running(s);
        s.engine.run_clock(ts);
      },
      arg("ts_ns"));
  c.def(
      "doubt", [](Self s, std::optional<std::uint32_t> i) { s.idle().doubt(i.value_or(ALL_INSTRUMENTS)); },
      arg("instrument") = py::none());
  c.def("save", [](Self s) { return saved(s.idle()); });
  c.def("load", [](Self s, const py::object& data) { loaded(s.idle(), data); }, arg("data"));
}

void append_orders(const Engine& engine, const Instrument& in, bool ask, Arena<RestingOrder>& out) {
  const Ladder& ladder = in.book.side[ask];
  RestingOrder row{};
  row.instrument = in.book.instrument;
  row.side = ask ? side::ASK : side::BID;
  for (std::size_t i = 0; i < ladder.size(); ++i) {
    const Level& level = engine.store().level(ladder.best(i).level);
    row.px = to_px(ask, level.key);
    row.priority = 0;
    if (level.orders == 0) {
      row.order_id = 0, row.qty = level.qty;
      out.push(row);
    }
    for (Handle o = level.head; level.orders > 0 && o != NO_HANDLE; ++row.priority) {
      const Order& order = engine.store().order(o);
      row.order_id = order.id, row.qty = order.qty;
      out.push(row);
      o = order.next;
    }
  }
}

py::array orders(const Engine& engine, std::uint32_t instrument) {
  Arena<RestingOrder> out;
  if (const Instrument* in = engine.find(instrument)) {
    append_orders(engine, *in, false, out);
    append_orders(engine, *in, true, out);
  }
  return take(out, "ORDER");
}

py::array_t<std::int64_t> side_levels(const Engine& engine, const Instrument* in, bool ask, std::size_t depth) {
  std::size_t n = in == nullptr ? 0 : in->book.side[ask].size();
  if (depth > 0) n = std::min(n, depth);
  py::array_t<std::int64_t> out({static_cast<py::ssize_t>(n), py::ssize_t{2}});
  std::int64_t* to = out.mutable_data();
  for (std::size_t i = 0; i < n; ++i) {
    const Level& level = engine.store().level(in->book.side[ask].best(i).level);
    to[2 * i] = to_px(ask, level.key);
    to[2 * i + 1] = level.qty;
  }
  return out;
}

py::tuple levels(const Engine& engine, std::uint32_t instrument, std::size_t depth) {
  const Instrument* in = engine.find(instrument);
  return py::make_tuple(side_levels(engine, in, false, depth), side_levels(engine, in, true, depth));
}

// Bytes that the engine holds, by what for.
py::dict memory(const Engine& engine) {
  const BookStore& store = engine.store();
  py::dict out;
  out["orders"] = store.order_bytes();
  out["levels"] = store.level_bytes();
  out["ladders"] = store.ladder_bytes();
  out["index"] = store.index().bytes();
  out["instruments"] = engine.instrument_bytes();
  return out;
}

py::tuple queue_position(const Engine& engine, std::uint32_t instrument, std::uint64_t order_id) {
  const BookStore& store = engine.store();
  const Handle h = store.find(instrument, order_id);
  if (h == NO_HANDLE) {
    throw py::key_error("order " + std::to_string(order_id) + " of instrument " + std::to_string(instrument) +
                        " is not in the book");
  }
  std::uint64_t ahead = 0;
  std::int64_t qty = 0;
  for (Handle o = store.order(h).prev; o != NO_HANDLE; o = store.order(o).prev) ++ahead, qty += store.order(o).qty;
  return py::make_tuple(ahead, qty);
}

py::array_t<std::uint32_t> instruments(const Engine& engine) {
  std::vector<std::uint32_t> out;
  for (const Instrument* in : engine.instruments()) {
    if (in->has_book) out.push_back(in->book.instrument);
  }
  return py::array_t<std::uint32_t>(static_cast<py::ssize_t>(out.size()), out.data());
}

py::dict integrity(const Engine& engine, std::optional<std::uint32_t> instrument) {
  const Instrument* in = instrument ? engine.find(*instrument) : nullptr;
  py::dict out;
  for (std::size_t k = 0; k < N_INTEGRITY; ++k) {
    out[INTEGRITY_NAMES[k]] = !instrument ? engine.integrity[k] : in == nullptr ? 0 : in->integrity[k];
  }
  return out;
}

py::bytes state_of(const Engine& engine, std::uint32_t instrument) {
  Instrument* in = engine.find(instrument);
  if (in == nullptr) throw py::key_error("instrument " + std::to_string(instrument) + " had no event");
  return py::bytes(static_cast<const char*>(in->state_block.data()), in->state_block.size());
}

template <class T, std::size_t N>
py::array_t<T> array_of(const std::array<T, N>& from) {
  return py::array_t<T>(static_cast<py::ssize_t>(N), from.data());
}

void bind_engine(py::module_& m) {
  using py::arg;
  using Self = PyEngine&;
  py::class_<PyEngine> c(m, "Engine");
  c.def(py::init<bool, std::size_t, std::size_t>(), py::kw_only(), arg("always_open") = false,
        arg("reserve_orders") = 1 << 16, arg("reserve_instruments") = 64);
  c.def(
      "run_events",
      [](Self s, const py::array& events) {
        const Event* from = records_of<Event>(events, "EVENT");
        const auto n = static_cast<std::size_t>(events.shape(0));
        if (n <= kFewEvents) {
          s.idle().run_events(from, n);
          return;
        }
        const Run run(s);
        s.engine.run_events(from, n);
      },
      arg("events"));
  c.def(
      "run_itch",
      [](Self s, ItchDecoder& decoder, const py::object& data, std::size_t offset, std::uint64_t max_messages) {
        const Buffer buffer(data);
        offset = checked_offset(buffer, offset);
        const Run run(s);
        return s.engine.run_itch(decoder, buffer.data(), buffer.size(), offset, max_messages);
      },
      arg("decoder"), arg("data"), arg("offset"), arg("max_messages"));
  c.def("finish", [](Self s) { s.idle().finish(); });

  c.def(
      "record_views",
      [](Self s, std::int64_t every_ns) {
        if (every_ns < 0) throw py::value_error("every_ns is negative");
        s.idle().record_views(every_ns);
      },
      arg("every_ns") = 0);
  c.def("take_views", [](Self s) { return take(s.idle().views, "VIEW"); });
  bind_sinks(c);

  c.def("watch", &watch, arg("kernel"), arg("state"), arg("table"), arg("heads") = nullptr, arg("alert") = 0,
        arg("alert_params") = py::bytes(), arg("alert_state") = py::bytes(), arg("rows") = 1, arg("select") = false);
  c.def(
      "set_table",
      [](Self s, std::uint32_t instrument, const py::bytes& state, const py::array& table, const py::bytes& params,
         bool keep_state) {
        s.idle().set_table(instrument, bytes_of(state), table_of(table), bytes_of(params), keep_state);
        s.tables.push_back(table);
      },
      arg("instrument"), arg("state"), arg("table"), arg("alert_params") = py::bytes(), arg("keep_state") = false);
  bind_live_engine(c);
  c.def("state_of", [](Self s, std::uint32_t i) { return state_of(s.idle(), i); }, arg("instrument"));
  c.def("ticks", [](Self s, bool on) { s.idle().ticks(on); }, arg("on"));
  c.def("take_rows", [](Self s) { return take(s.idle().rows, "ROW"); });
  c.def("look_ahead", [](Self s, bool on) { s.idle().look_ahead(on); }, arg("on"));
  c.def("latency", [](Self s, bool on) { s.idle().latency(on); }, arg("on"));
  c.def("take_latency", [](Self s) { return array_of(s.idle().histogram.take()); });

  c.def("orders", [](Self s, std::uint32_t i) { return orders(s.idle(), i); }, arg("instrument"));
  c.def(
      "levels", [](Self s, std::uint32_t i, std::size_t depth) { return levels(s.idle(), i, depth); },
      arg("instrument"), arg("depth") = 0);
  c.def(
      "queue_position", [](Self s, std::uint32_t i, std::uint64_t id) { return queue_position(s.idle(), i, id); },
      arg("instrument"), arg("order_id"));
  c.def("instruments", [](Self s) { return instruments(s.idle()); });
  c.def(
      "integrity", [](Self s, std::optional<std::uint32_t> i) { return integrity(s.idle(), i); },
      arg("instrument") = py::none());
  c.def("findings", [](Self s) {
    py::array out(record("FINDING"), static_cast<py::ssize_t>(s.idle().findings.size()));
    std::memcpy(out.mutable_data(), s.idle().findings.data(), s.idle().findings.size() * sizeof(Finding));
    return out;
  });
  c.def(
      "count",
      [](Self s, std::size_t kind, std::uint64_t n, std::optional<std::uint32_t> instrument) {
        if (kind >= N_INTEGRITY) throw py::value_error("no such Integrity kind: " + std::to_string(kind));
        s.idle().count(static_cast<Integrity>(kind), n, instrument.value_or(ALL_INSTRUMENTS));
      },
      arg("kind"), arg("n") = 1, arg("instrument") = py::none());
  c.def(
      "suspect",
      [](Self s, std::uint32_t i) {
        const Instrument* in = s.idle().find(i);
        return in != nullptr && in->suspect;
      },
      arg("instrument"));
  c.def("reset_book", [](Self s, std::uint32_t i) { s.idle().reset_book(i); }, arg("instrument"));
  c.def_property_readonly("n_events", [](Self s) { return s.engine.n_events; });
  c.def_property_readonly("live_orders", [](Self s) { return s.engine.store().live_orders(); });
  c.def_property_readonly("now", [](Self s) { return s.engine.now; });
  c.def("memory", [](Self s) { return memory(s.idle()); });
  c.def_property_readonly("allocations", [](Self s) { return s.engine.growths; });
}

void bind_decoder(py::module_& m) {
  using py::arg;
  py::class_<ItchDecoder> c(m, "ItchDecoder");
  c.def(py::init<std::int64_t, bool>(), py::kw_only(), arg("midnight_ns") = 0, arg("loose_framing") = false);
  c.def("decode", &decode, arg("data"), arg("offset"), arg("out"));
  c.def("message", &decode_one, arg("data"), arg("seq"), arg("ts_recv"), arg("out"));
  c.def("symbols", &symbols);
  c.def("counts", &counts);
  c.def_readonly("messages", &ItchDecoder::messages);
  c.def_readonly("malformed", &ItchDecoder::malformed);
  c.def_readonly("unknown_type", &ItchDecoder::unknown_type);
  c.def_readonly("trailing", &ItchDecoder::trailing);
  c.def_readonly("ended", &ItchDecoder::ended);
  c.def_readonly("first_ts", &ItchDecoder::first_ts);
  c.def_readonly("last_ts", &ItchDecoder::last_ts);
}

void bind_heads(py::module_& m) {
  using py::arg;
  py::class_<Heads, std::shared_ptr<Heads>> c(m, "Heads");
  c.def(py::init(&make_heads), arg("tensors"), arg("mask") = 0xFFFFFFFFU);
  c.def("score", &score_batch, arg("codes"));
  c.def_property("vectorised", &Heads::vectorised, &Heads::use_vectors);
}

py::array_t<std::uint64_t> latency_edges() {
  std::array<std::uint64_t, Histogram::BUCKETS> edges{};
  for (std::size_t i = 0; i < edges.size(); ++i) edges[i] = Histogram::edge(i);
  return array_of(edges);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Order books, ITCH decoder and integer heads in C++; see _core.pyi for the contracts.";
  m.attr("ABI_HASH") = ABI_HASH;
  m.attr("ALL_INSTRUMENTS") = ALL_INSTRUMENTS;
  bind_heads(m);
  bind_decoder(m);
  bind_engine(m);
  m.def("latency_edges", &latency_edges);
  bind_paced(m);
  bind_tables(m);
  bind_capture(m);
  bind_iex(m);
  bind_live(m);
}
