// Journal, LiveFeed and Poller of microrisk._core; the contracts are in _core.pyi.
#include "live.hpp"

#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "arrays.hpp"
#include "engine_object.hpp"
#include "microrisk/live.hpp"
#include "microrisk/poller.hpp"

namespace microrisk {

namespace {

// OSError with its number, so that Python sees ENOSPC as ENOSPC.
[[noreturn]] void raise_os(const std::system_error& e) {
  PyErr_SetObject(PyExc_OSError, py::make_tuple(e.code().value(), e.what()).ptr());
  throw py::error_already_set();
}

// A feed with the engine that it drives. While a poller runs, other threads may read counters and plain numbers, which
// are atomic; everything else asks idle() first.
struct PyLiveFeed {
  PyLiveFeed(const py::object& of, std::uint16_t number, std::int64_t midnight_ns, const py::bytes& session,
             std::uint64_t expected, std::size_t window)
      : owner(of), engine(of.cast<PyEngine&>()), feed(engine.engine, number, midnight_ns, session, expected, window) {}
  LiveFeed& idle() {
    (void)engine.idle();
    return feed;
  }
  py::object owner;
  PyEngine& engine;
  LiveFeed feed;
};

struct PyJournal {
  PyJournal(int fd, std::uint64_t number, std::uint32_t crc) : journal(fd, number, crc) {}
  Journal& idle() {
    if (busy) throw std::runtime_error("the journal is being written by another thread");
    return journal;
  }
  Journal journal;
  bool busy = false;  // changed only under the interpreter lock
};

struct PyPoller {
  explicit PyPoller(const py::object& of)
      : owner(of), journal(of.cast<PyJournal&>()), poller(of.cast<PyJournal&>().journal) {}
  Poller& idle() {
    if (busy) throw std::runtime_error("the poller is running in another thread");
    return poller;
  }
  py::object owner;
  PyJournal& journal;
  Poller poller;
  std::vector<py::object> held;
  std::vector<PyEngine*> engines;
  bool busy = false;  // changed only under the interpreter lock

  void hold(const py::object& feed) {
    for (const py::object& each : held)
      if (each.is(feed)) return;
    held.push_back(feed);
    engines.push_back(&feed.cast<PyLiveFeed&>().engine);
  }
};

// Without the interpreter lock; the poller, its journal and every engine are marked as running.
class Running {
 public:
  explicit Running(PyPoller& self) : self_(self) {
    (void)self.idle();
    (void)self.journal.idle();
    for (PyEngine* e : self.engines) (void)e->idle();
    mark(true);
    saved_ = PyEval_SaveThread();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    PyEval_RestoreThread(saved_);
    mark(false);
  }

 private:
  void mark(bool busy) noexcept {
    self_.busy = self_.journal.busy = busy;
    for (PyEngine* e : self_.engines) e->busy = busy;
  }
  PyPoller& self_;
  PyThreadState* saved_ = nullptr;
};

template <class F>
auto guarded(F work) {
  try {
    return work();
  } catch (const std::system_error& e) {
    raise_os(e);
  }
}

std::uint64_t poll(PyPoller& self, std::int64_t timeout_us, std::int64_t grace_us, bool spin) {
  return guarded([&] {
    const Running running(self);
    return self.poller.poll(timeout_us, grace_us, spin);
  });
}

py::dict counters(const PyPoller& self) {
  const PollerCounts& c = self.poller.counts;
  py::dict out;
  out["polls"] = c.polls.get(), out["wakes"] = c.wakes.get(), out["datagrams"] = c.datagrams.get();
  out["batches"] = c.batches.get(), out["kernel_drops"] = c.kernel_drops.get();
  out["truncated"] = c.truncated.get(), out["receive_errors"] = c.receive_errors.get();
  out["clock_steps"] = self.poller.clock.steps();
  return out;
}

py::dict counters(const PyLiveFeed& self) {
  const ArbiterCounts& c = self.feed.arbiter.counts;
  py::dict out;
  const char* const lines[] = {"packets_a", "packets_b", "packets_c"};
  const char* const jumps[] = {"missing_a", "missing_b", "missing_c"};
  for (std::size_t i = 0; i < 3; ++i) {
    out[lines[i]] = self.feed.arbiter.lines()[i].packets.get();
    out[jumps[i]] = self.feed.arbiter.lines()[i].missing.get();
  }
  out["messages"] = c.taken.get(), out["duplicates"] = c.duplicates.get(), out["late"] = c.late.get();
  out["recovered"] = c.recovered.get(), out["reordered"] = c.reordered.get(), out["malformed"] = c.malformed.get();
  out["requests"] = c.requests.get(), out["heartbeats"] = c.heartbeats.get(), out["ends"] = c.ends.get();
  out["unsequenced"] = c.unsequenced.get(), out["trailing"] = c.trailing.get(), out["foreign"] = c.foreign.get();
  out["wild"] = c.wild.get(), out["behind"] = c.behind.get(), out["overflow"] = c.overflow.get();
  out["dropped"] = c.dropped.get(), out["held"] = c.held.get(), out["held_max"] = c.held_max.get();
  out["waiting"] = c.waiting.get(), out["missing"] = c.missing.get();
  return out;
}

py::array_t<std::uint64_t> counts_of(const FineHistogram& h) {
  return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(FineHistogram::BUCKETS), h.counts().data());
}

py::dict stages(PyLiveFeed& self) {
  const StageTimes& s = self.idle().stages;
  py::dict out;
  out["receive_taken"] = counts_of(s.receive_taken);
  out["taken_journalled"] = counts_of(s.taken_journalled);
  out["journalled_scored"] = counts_of(s.journalled_scored);
  out["receive_scored"] = counts_of(s.receive_scored);
  out["missing_filled"] = counts_of(self.idle().arbiter.missing_filled);
  return out;
}

py::list holes(PyLiveFeed& self) {
  py::list out;
  for (const Hole& h : self.idle().arbiter.holes()) out.append(py::make_tuple(h.first, h.end - h.first, h.since_ns));
  return out;
}

py::object waiting_session(PyLiveFeed& self) {
  const std::string& name = self.idle().arbiter.waiting();
  return name.empty() ? py::object(py::none()) : py::object(py::bytes(name));
}

py::dict symbols(PyLiveFeed& self) {
  py::dict out;
  const auto& known = self.idle().decoder().symbols();
  for (std::size_t locate = 0; locate < known.size(); ++locate) {
    std::string_view text(known[locate].data(), known[locate].size());
    if (text == std::string_view("\0\0\0\0\0\0\0\0", 8)) continue;
    text = text.substr(0, text.find_last_not_of(' ') + 1);
    out[py::int_(locate)] = py::reinterpret_steal<py::str>(
        PyUnicode_DecodeLatin1(text.data(), static_cast<py::ssize_t>(text.size()), nullptr));
  }
  return out;
}

std::uint64_t apply(PyLiveFeed& self, std::uint8_t kind, std::uint8_t flags, std::int64_t recv_ns, std::uint64_t seq,
                    const py::object& body) {
  const Buffer buffer(body);
  const Run running(self.engine);
  return self.feed.apply(
      Record{self.feed.number(), static_cast<journal::Kind>(kind), flags, recv_ns, seq, buffer.data(), buffer.size()});
}

void load(PyLiveFeed& self, const py::object& data) {
  const Buffer buffer(data);
  try {
    self.idle().load(buffer.data(), buffer.size());
  } catch (const std::invalid_argument& e) {
    raise("JournalError", e.what());
  }
}

void bind_journal(py::module_& m) {
  using py::arg;
  py::class_<PyJournal> c(m, "Journal");
  c.def(py::init<int, std::uint64_t, std::uint32_t>(), arg("fd"), py::kw_only(), arg("number") = 0, arg("crc") = 0);
  c.def(
      "append",
      [](PyJournal& s, std::uint16_t feed, std::uint8_t kind, std::uint8_t flags, std::int64_t recv_ns,
         std::uint64_t seq, const py::object& body) {
        const Buffer b(body);
        s.idle().append(Record{feed, static_cast<journal::Kind>(kind), flags, recv_ns, seq, b.data(), b.size()});
      },
      arg("feed"), arg("kind"), arg("flags"), arg("recv_ns"), arg("seq"), arg("body"));
  c.def("flush", [](PyJournal& s) {
    return guarded([&] {
      Journal& journal = s.idle();
      s.busy = true;
      struct Done {
        PyJournal& of;
        ~Done() { of.busy = false; }
      } const done{s};
      const py::gil_scoped_release release;
      return journal.flush();
    });
  });
  c.def("switch", [](PyJournal& s, int fd) { s.idle().change_file(fd); }, arg("fd"));
  c.def_property_readonly("number", [](const PyJournal& s) { return s.journal.number(); });
  c.def_property_readonly("crc", [](const PyJournal& s) { return s.journal.crc(); });
  c.def_property_readonly("written_bytes", [](const PyJournal& s) { return s.journal.written_bytes(); });
  c.def_property_readonly("pending_records", [](const PyJournal& s) { return s.journal.pending_records(); });
}

void bind_feed(py::module_& m) {
  using py::arg;
  using Self = PyLiveFeed&;
  py::class_<PyLiveFeed> c(m, "LiveFeed");
  c.def(py::init<const py::object&, std::uint16_t, std::int64_t, const py::bytes&, std::uint64_t, std::size_t>(),
        arg("engine"), py::kw_only(), arg("number"), arg("midnight_ns"), arg("session") = py::bytes(),
        arg("expected") = 0, arg("window") = 65536);
  c.def(
      "take",
      [](Self s, std::size_t line, const py::object& datagram, std::int64_t recv_ns, PyJournal& journal) {
        const Buffer b(datagram);
        s.idle().heard(recv_ns);
        s.feed.arbiter.take(line, b.data(), b.size(), recv_ns, journal.idle());
      },
      arg("line"), arg("datagram"), arg("recv_ns"), arg("journal"));
  c.def(
      "take_stream",
      [](Self s, std::uint64_t seq, const py::object& blocks, std::int64_t recv_ns, PyJournal& journal) {
        const Buffer b(blocks);
        s.idle().heard(recv_ns);
        s.feed.arbiter.take_stream(seq, b.data(), b.size(), recv_ns, journal.idle());
      },
      arg("seq"), arg("blocks"), arg("recv_ns"), arg("journal"));
  c.def("holes", &holes);
  c.def(
      "give_up",
      [](Self s, std::uint64_t upto, std::int64_t recv_ns, PyJournal& journal) {
        return s.idle().arbiter.give_up(upto, recv_ns, journal.idle());
      },
      arg("upto"), arg("recv_ns"), arg("journal"));
  c.def("waiting_session", &waiting_session);
  c.def(
      "begin_session",
      [](Self s, const py::bytes& name, std::int64_t midnight_ns, std::int64_t recv_ns, PyJournal& journal,
         std::uint64_t first) { s.idle().arbiter.begin_session(name, midnight_ns, first, recv_ns, journal.idle()); },
      arg("name"), arg("midnight_ns"), arg("recv_ns"), arg("journal"), arg("first") = 1);
  c.def("expect_day", [](Self s, std::int64_t midnight_ns) { s.idle().arbiter.expect_day(midnight_ns); });
  c.def("refuse_session", [](Self s) { s.idle().arbiter.refuse_session(); });
  c.def("begin_join", [](Self s) { s.idle().arbiter.begin_join(); });
  c.def(
      "joined",
      [](Self s, std::uint64_t seq, std::int64_t recv_ns, PyJournal& journal) {
        s.idle().arbiter.joined(seq, recv_ns, journal.idle());
      },
      arg("seq"), arg("recv_ns"), arg("journal"));
  c.def("apply", &apply, arg("kind"), arg("flags"), arg("recv_ns"), arg("seq"), arg("body"));
  c.def("counters", [](const PyLiveFeed& s) { return counters(s); });
  c.def("stages", &stages);
  c.def("symbols", &symbols);
  c.def("save", [](Self s) {
    const Bytes out = s.idle().save();
    return py::bytes(reinterpret_cast<const char*>(out.data()), out.size());
  });
  c.def("load", &load, arg("data"));
  c.def_property_readonly("expected", [](const PyLiveFeed& s) { return s.feed.arbiter.expected(); });
  c.def_property_readonly("session", [](Self s) { return py::bytes(s.idle().arbiter.session()); });
  c.def_property_readonly("ended", [](const PyLiveFeed& s) { return s.feed.arbiter.ended(); });
  c.def_property_readonly("urgent", [](const PyLiveFeed& s) { return s.feed.urgent(); });
  c.def_property_readonly("joining", [](const PyLiveFeed& s) { return s.feed.arbiter.joining(); });
  c.def_property_readonly("messages", [](const PyLiveFeed& s) { return s.feed.messages(); });
  c.def_property_readonly("names_version", [](const PyLiveFeed& s) { return s.feed.names_version(); });
  c.def_property_readonly("last_packet_ns", [](const PyLiveFeed& s) { return s.feed.last_packet_ns(); });
}

void bind_poller(py::module_& m) {
  using py::arg;
  using Self = PyPoller&;
  py::class_<PyPoller> c(m, "Poller");
  c.def(py::init<const py::object&>(), arg("journal"));
  c.def(
      "add",
      [](Self s, int fd, const py::object& feed, std::size_t line) {
        guarded([&] { s.idle().add(fd, feed.cast<PyLiveFeed&>().feed, line); });
        s.hold(feed);
      },
      arg("fd"), arg("feed"), arg("line"));
  c.def("remove", [](Self s, int fd) { s.idle().remove(fd); }, arg("fd"));
  c.def(
      "know",
      [](Self s, const py::object& feed) {
        s.idle().know(feed.cast<PyLiveFeed&>().feed);
        s.hold(feed);
      },
      arg("feed"));
  c.def("wake", [](Self s) { s.poller.wake(); });
  c.def("poll", &poll, arg("timeout_us"), arg("grace_us") = 1000, arg("spin") = false);
  c.def("commit", [](Self s) {
    return guarded([&] {
      const Running running(s);
      return s.poller.commit();
    });
  });
  c.def("now_ns", [](const PyPoller& s) { return s.poller.clock.now(); });
  c.def("shift_wall", [](Self s, std::int64_t ns) { s.poller.clock.shift(ns); }, arg("ns"));
  c.def("counters", [](const PyPoller& s) { return counters(s); });
}

}  // namespace

void bind_live(py::module_& m) {
  bind_journal(m);
  bind_feed(m);
  bind_poller(m);
  m.def(
      "crc32",
      [](const py::object& data, std::uint32_t crc) {
        const Buffer b(data);
        return crc32(crc, b.data(), b.size());
      },
      py::arg("data"), py::arg("crc") = 0);
}

}  // namespace microrisk
