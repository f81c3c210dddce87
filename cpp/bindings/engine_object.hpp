// The engine as Python holds it; shared by the files that bind its methods.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "microrisk/engine.hpp"

namespace microrisk {

namespace py = pybind11;

// The engine with the Python objects whose memory it reads. While one thread runs it, another may only look at
// counters.
struct PyEngine {
  PyEngine(bool always_open, std::size_t orders, std::size_t instruments)
      : engine(always_open, at_most(MAX_RESERVE, orders, "reserve_orders"),
               at_most(MAX_INSTRUMENTS, instruments, "reserve_instruments")) {}

  Engine& idle() {
    if (busy) throw std::runtime_error("the engine is running in another thread");
    return engine;
  }

  Engine engine;
  bool busy = false;  // changed only under the interpreter lock
  std::shared_ptr<Heads> heads;
  py::object table;
  std::vector<py::object> tables;

 private:
  static constexpr std::size_t MAX_RESERVE = std::size_t{1} << 28;
  static std::size_t at_most(std::size_t limit, std::size_t n, const char* name) {
    if (n > limit) throw py::value_error(std::string(name) + " must be at most " + std::to_string(limit));
    return n;
  }
};

// Runs the engine without the interpreter lock.
class Run {
 public:
  explicit Run(PyEngine& self) : self_(self) {
    self.idle();
    self.busy = true;
    saved_ = PyEval_SaveThread();
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {
    PyEval_RestoreThread(saved_);
    self_.busy = false;
  }

 private:
  PyEngine& self_;
  PyThreadState* saved_ = nullptr;
};

}  // namespace microrisk
