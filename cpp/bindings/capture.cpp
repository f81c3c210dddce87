// microrisk._core: captures of MoldUDP64.
#include "captures.hpp"
#include "feeds.hpp"
#include "microrisk/itch.hpp"

namespace microrisk {

namespace {

using MoldCapture = TransportCaptures<MoldReader>;

py::list datagrams(const py::object& data, std::size_t max) {
  py::list buffers;
  buffers.append(data);
  HeldCaptures held(buffers);
  py::list out;
  Datagram d;
  while (py::len(out) < max && held.get().next(d)) {
    const py::bytes payload(reinterpret_cast<const char*>(d.data), d.size);
    out.append(py::make_tuple(d.ts, d.dst, d.port, payload, d.cut));
  }
  py::list both;
  both.append(out);
  both.append(held.counters()[0]);
  return both;
}

py::tuple decode(MoldCapture& self, ItchDecoder& decoder, const py::array& out, std::uint64_t max_messages) {
  Event* to = records_of<Event>(out, "EVENT", true);
  const auto room = static_cast<std::size_t>(out.shape(0));
  Pulled done;
  {
    py::gil_scoped_release release;
    done = pull(self.captures.get(), self.transport, to, room, 1, max_messages, [&](const Block& b, Event* at) {
      const std::int64_t ts = b.ts == 0 ? NULL_TS : b.ts;
      const bool event = decoder.message({b.data, b.size}, b.seq, ts, *at) == ItchDecoder::Outcome::EVENT;
      return static_cast<std::size_t>(event);
    });
  }
  return py::make_tuple(done.events, done.more);
}

}  // namespace

void bind_capture(py::module_& m) {
  using py::arg;
  py::class_<MoldCapture> c(m, "MoldCapture");
  c.def(py::init<const py::list&, std::uint64_t>(), arg("captures"), py::kw_only(), arg("first") = 0);
  c.def("decode", &decode, arg("decoder"), arg("out"), arg("max_messages"));
  bind_transport<MoldCapture>(c);
  m.def("udp_datagrams", &datagrams, arg("data"), arg("max") = SIZE_MAX);
}

}  // namespace microrisk
