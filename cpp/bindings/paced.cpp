// run_paced and spin of microrisk._core; the contracts are in _core.pyi.
#include "paced.hpp"

#include "arrays.hpp"
#include "engine_object.hpp"
#include "microrisk/paced.hpp"

namespace microrisk {

namespace {

py::array_t<std::uint64_t> counts_of(const FineHistogram& h) {
  return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(FineHistogram::BUCKETS), h.counts().data());
}

void put(py::dict& out, const char* name, const FineHistogram& h) {
  const std::string key = name;
  out[py::str(key)] = counts_of(h);
  out[py::str(key + "_sum_ns")] = h.sum();
  out[py::str(key + "_max_ns")] = h.max();
}

void put(py::dict& out, const Away& away) {
  out["away_ns"] = away.ns;
  out["away_max_ns"] = away.max_ns;
  out["away_times"] = away.times;
}

py::dict paced(PyEngine& self, ItchDecoder& decoder, const py::object& data, std::size_t offset,
               std::uint64_t max_messages, double interval_ns, double time_scale) {
  if (!(interval_ns >= 0) || !(time_scale >= 0)) throw py::value_error("interval_ns and time_scale must be >= 0");
  if (interval_ns > 0 && time_scale > 0) throw py::value_error("either interval_ns or time_scale");
  const Buffer buffer(data);
  offset = checked_offset(buffer, offset);
  PacedRun run;
  {
    const Run running(self);
    run = run_paced(self.engine, decoder, buffer.data(), buffer.size(), offset, max_messages,
                    Pace{interval_ns, time_scale});
  }
  py::dict out;
  put(out, "latency", run.latency);
  put(out, "service", run.service);
  put(out, run.away);
  out["messages"] = run.messages;
  out["late"] = run.late;
  out["wall_ns"] = run.wall_ns;
  out["waited_ns"] = run.waited_ns;
  out["offset"] = run.offset;
  return out;
}

py::dict spinning(double seconds) {
  if (!(seconds >= 0 && seconds <= 3600)) throw py::value_error("seconds must be 0..3600");
  Spin result;
  {
    const py::gil_scoped_release release;
    result = spin(static_cast<std::uint64_t>(seconds * 1e9));
  }
  py::dict out;
  put(out, "gaps", result.gaps);
  put(out, result.away);
  out["wall_ns"] = result.wall_ns;
  return out;
}

py::array_t<std::uint64_t> fine_edges() {
  py::array_t<std::uint64_t> out(static_cast<py::ssize_t>(FineHistogram::BUCKETS));
  for (std::size_t i = 0; i < FineHistogram::BUCKETS; ++i) out.mutable_data()[i] = FineHistogram::edge(i);
  return out;
}

}  // namespace

void bind_paced(py::module_& m) {
  using py::arg;
  m.def("run_paced", &paced, arg("engine"), arg("decoder"), arg("data"), arg("offset"), arg("max_messages"),
        py::kw_only(), arg("interval_ns") = 0.0, arg("time_scale") = 0.0);
  m.def("spin", &spinning, arg("seconds"));
  m.def("paced_edges", &fine_edges);
}

}  // namespace microrisk
