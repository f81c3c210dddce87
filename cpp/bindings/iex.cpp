// microrisk._core: captures of IEX-TP and the decoder of its messages.
#include "microrisk/iex.hpp"

#include <string_view>

#include "captures.hpp"
#include "feeds.hpp"

namespace microrisk {

namespace {

using IexCapture = TransportCaptures<IexReader>;

py::str latin1(std::string_view text) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeLatin1(text.data(), static_cast<py::ssize_t>(text.size()), nullptr));
}

py::list symbols(const IexDecoder& decoder) {
  py::list out;
  for (const auto& symbol : decoder.symbols()) {
    const std::string_view text(symbol.data(), symbol.size());
    out.append(latin1(text.substr(0, text.find_last_not_of(' ') + 1)));
  }
  return out;
}

py::dict counts(const IexDecoder& decoder) {
  py::dict out;
  for (std::size_t code = 0; code < 256; ++code) {
    const auto letter = static_cast<char>(code);
    if (const std::uint64_t n = decoder.counts()[code]; n > 0) out[latin1({&letter, 1})] = n;
  }
  return out;
}

py::tuple decode(IexCapture& self, IexDecoder& decoder, const py::array& out, std::uint64_t max_messages) {
  Event* to = records_of<Event>(out, "EVENT", true);
  const auto room = static_cast<std::size_t>(out.shape(0));
  if (room < IexDecoder::MAX_EVENTS) throw py::value_error("the output array has no room for one message");
  Pulled done;
  {
    py::gil_scoped_release release;
    done = pull_iex(self.captures.get(), self.transport, decoder, to, room, max_messages);
  }
  return py::make_tuple(done.events, done.more);
}

}  // namespace

void bind_iex(py::module_& m) {
  using py::arg;
  py::class_<IexCapture> c(m, "IexCapture");
  c.def(py::init<const py::list&, std::uint16_t>(), arg("captures"), arg("protocol"));
  c.def("decode", &decode, arg("decoder"), arg("out"), arg("max_messages"));
  bind_transport<IexCapture>(c);

  py::class_<IexDecoder> d(m, "IexDecoder");
  d.def(py::init<std::uint16_t>(), arg("protocol"));
  d.def("symbols", &symbols);
  d.def("counts", &counts);
  d.def_property_readonly("clearing", &IexDecoder::clearing);
  d.def_readonly("messages", &IexDecoder::messages);
  d.def_readonly("malformed", &IexDecoder::malformed);
  d.def_readonly("unknown_type", &IexDecoder::unknown_type);
  d.def_readonly("synthetic", &IexDecoder::synthetic);
  d.def_readonly("first_ts", &IexDecoder::first_ts);
  d.def_readonly("last_ts", &IexDecoder::last_ts);
}

}  // namespace microrisk
