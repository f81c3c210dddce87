// The recording methods of Engine, and Naming and Table; the contracts are in _core.pyi.
#include "sinks.hpp"

#include <pybind11/stl.h>

#include <string>

#include "arrays.hpp"
#include "microrisk/sinks.hpp"

namespace microrisk {

namespace {

constexpr std::size_t MAX_DEPTH = 10'000;

py::tuple take_depth(Engine& engine) {
  const auto n = static_cast<py::ssize_t>(engine.depth_rows.size());
  const auto depth = static_cast<py::ssize_t>(engine.depth());
  py::array levels = to_array(engine.depth_levels, py::dtype::of<std::int64_t>(), {n, 2, depth, 2});
  return py::make_tuple(take(engine.depth_rows, "BBO"), levels);
}

std::size_t checked_depth(std::size_t depth) {
  if (depth < 1 || depth > MAX_DEPTH) throw py::value_error("depth must be 1..10000");
  return depth;
}

std::unique_ptr<Table> make_table(const std::string& what, std::shared_ptr<Naming> naming) {
  constexpr const char* NAMES[] = {"bbo", "book", "samples", "trades", "events"};
  for (std::size_t i = 0; i < std::size(NAMES); ++i) {
    if (what == NAMES[i]) return std::make_unique<Table>(static_cast<Table::What>(i), std::move(naming));
  }
  throw py::value_error("no table of " + what);
}

py::bytes bytes_of(const parquet::Body& body) {
  return py::bytes(reinterpret_cast<const char*>(body.data()), body.size());
}

py::list drain(Table& table, PyEngine& engine) {
  std::vector<std::uint32_t> unknown;
  {
    const Run run(engine);
    table.drain(engine.engine, unknown);
  }
  return py::cast(unknown);
}

py::list pages(Table& table) {
  py::list out;
  for (const parquet::Page& p : table.pages) {
    out.append(py::make_tuple(p.column, static_cast<int>(p.encoding), p.values, bytes_of(p.body)));
  }
  table.pages.clear();
  return out;
}

py::list end_group(Table& table, const std::vector<bool>& is_unsigned) {
  if (is_unsigned.size() != table.columns().size()) throw py::value_error("one flag a column");
  py::list out;
  parquet::Body dictionary;
  std::size_t at = 0;
  for (parquet::Column& column : table.columns()) {
    std::uint32_t entries = 0;
    const bool u = is_unsigned[at++];
    const parquet::Summary s = column.end_group(u, dictionary, entries);
    py::object least = py::none(), most = py::none();
    if (s.any && u) {
      least = py::int_(static_cast<std::uint64_t>(s.min)), most = py::int_(static_cast<std::uint64_t>(s.max));
    } else if (s.any) {
      least = py::int_(s.min), most = py::int_(s.max);
    }
    out.append(py::make_tuple(bytes_of(dictionary), entries, least, most, s.nulls));
  }
  table.begin_group();
  return out;
}

}  // namespace

void bind_sinks(py::class_<PyEngine>& c) {
  using py::arg;
  using Self = PyEngine&;
  c.def("record_bbo", [](Self s) { s.idle().record_bbo(); });
  c.def("take_bbo", [](Self s) { return take(s.idle().bbo, "BBO"); });
  c.def("record_depth", [](Self s, std::size_t depth) { s.idle().record_depth(checked_depth(depth)); }, arg("depth"));
  c.def(
      "record_samples",
      [](Self s, std::size_t depth, std::int64_t every_ns) {
        if (every_ns < 1) throw py::value_error("every_ns must be at least 1");
        s.idle().record_samples(checked_depth(depth), every_ns);
      },
      arg("depth"), arg("every_ns"));
  c.def("take_depth", [](Self s) { return take_depth(s.idle()); });
  c.def("record_prints", [](Self s) { s.idle().record_prints(); });
  c.def("record_deeds", [](Self s) { s.idle().record_deeds(); });
}

void bind_tables(py::module_& m) {
  using py::arg;
  py::class_<Naming, std::shared_ptr<Naming>>(m, "Naming")
      .def(py::init<>())
      .def("set", &Naming::set, arg("instrument"), arg("place"), arg("px_exp"));
  py::class_<Table>(m, "Table")
      .def(py::init(&make_table), arg("what"), arg("naming"))
      .def("drain", &drain, arg("engine"))
      .def_property_readonly("rows", &Table::rows)
      .def("end_pages", &Table::end_pages)
      .def("pages", &pages)
      .def("end_group", &end_group, arg("is_unsigned"));
}

}  // namespace microrisk
