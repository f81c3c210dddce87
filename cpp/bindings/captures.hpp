// What the bindings of captures share: buffers that stay, counters as dictionaries.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "microrisk/capture.hpp"

namespace microrisk {

// Captures over buffers of Python, which are held as long as this lives; a FeedError when one is no capture.
class HeldCaptures {
 public:
  explicit HeldCaptures(const py::list& buffers) : captures_(open(buffers, held_)) {}
  Captures& get() noexcept { return captures_; }

  double progress() const noexcept {
    double read = 0, size = 0;
    for (const Capture& c : captures_.all()) {
      read += static_cast<double>(c.offset());
      size += static_cast<double>(c.size());
    }
    return size > 0 ? read / size : 1.0;
  }

  py::list counters() const {
    py::list out;
    for (const Capture& c : captures_.all()) {
      py::dict one;
      one["packets"] = c.counts.packets, one["datagrams"] = c.counts.datagrams, one["other"] = c.counts.other;
      one["fragments"] = c.counts.fragments, one["cut"] = c.counts.cut, one["truncated_at"] = c.counts.truncated_at;
      out.append(one);
    }
    return out;
  }

 private:
  static std::vector<Capture> open(const py::list& buffers, std::vector<std::unique_ptr<Buffer>>& held) {
    std::vector<Capture> out;
    for (const py::handle each : buffers) {
      held.push_back(std::make_unique<Buffer>(py::reinterpret_borrow<py::object>(each)));
      try {
        out.emplace_back(held.back()->data(), held.back()->size());
      } catch (const std::invalid_argument& e) {
        raise("FeedError", e.what());
      }
    }
    return out;
  }

  std::vector<std::unique_ptr<Buffer>> held_;
  Captures captures_;
};

inline py::dict to_dict(const TransportCounts& c) {
  py::dict out;
  out["packets"] = c.packets, out["messages"] = c.messages, out["heartbeats"] = c.heartbeats;
  out["requests"] = c.requests, out["ended"] = c.ended, out["gap"] = c.gap, out["missing"] = c.missing;
  out["late"] = c.late, out["duplicate_seq"] = c.duplicate_seq, out["session_reset"] = c.session_reset;
  out["malformed"] = c.malformed, out["unsequenced"] = c.unsequenced, out["trailing"] = c.trailing;
  out["foreign"] = c.foreign;
  return out;
}

inline py::list to_list(const std::vector<Gap>& gaps, std::size_t from) {
  py::list out;
  for (std::size_t i = from; i < gaps.size(); ++i) {
    const Gap& g = gaps[i];
    out.append(py::make_tuple(py::bytes(g.session), g.first, g.count, g.ts_recv));
  }
  return out;
}

// (sequence, receive time, bytes) of up to `max` new messages.
template <class Transport>
py::list blocks(Captures& captures, Transport& transport, std::size_t max) {
  py::list out;
  Datagram datagram;
  Block block;
  while (py::len(out) < max) {
    if (transport.next(block)) {
      const py::bytes data(reinterpret_cast<const char*>(block.data), block.size);
      out.append(py::make_tuple(block.seq, block.ts, data));
    } else if (captures.next(datagram)) {
      transport.open(datagram);
    } else {
      break;
    }
  }
  return out;
}

// Captures, their transport, and the methods that every such pair has.
template <class Transport>
struct TransportCaptures {
  template <class... Args>
  explicit TransportCaptures(const py::list& buffers, Args... args) : captures(buffers), transport(args...) {}
  HeldCaptures captures;
  Transport transport;
};

template <class Self, class Class>
void bind_transport(Class& c) {
  c.def("blocks", [](Self& s, std::size_t max) { return blocks(s.captures.get(), s.transport, max); }, py::arg("max"));
  c.def("counters", [](const Self& s) { return to_dict(s.transport.counts); });
  c.def("captures", [](const Self& s) { return s.captures.counters(); });
  c.def("gaps", [](const Self& s, std::size_t from) { return to_list(s.transport.gaps, from); }, py::arg("start") = 0);
  c.def_property_readonly("progress", [](const Self& s) { return s.captures.progress(); });
}

}  // namespace microrisk
