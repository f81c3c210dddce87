// Buffers in and record arrays out, checked.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "microrisk/memory.hpp"

namespace py = pybind11;

namespace microrisk {

// A dtype of microrisk.spec.records; imported once and kept for the life of the interpreter.
inline py::dtype record(const char* name) {
  return py::module_::import("microrisk.spec.records").attr(name).cast<py::dtype>();
}

[[noreturn]] inline void raise(const char* error, const std::string& text) {
  PyErr_SetString(py::module_::import("microrisk.errors").attr(error).ptr(), text.c_str());
  throw py::error_already_set();
}

// Read-only bytes of any contiguous buffer, held while this lives.
class Buffer {
 public:
  explicit Buffer(const py::object& from) {
    if (PyObject_GetBuffer(from.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { PyBuffer_Release(&view_); }
  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

inline std::size_t checked_offset(const Buffer& data, std::size_t offset) {
  if (offset > data.size()) {
    throw py::value_error("offset " + std::to_string(offset) + " is behind the end of " + std::to_string(data.size()) +
                          " bytes");
  }
  return offset;
}

// The buffer's records as an array; small ones are copied so that the sink keeps its capacity, large ones handed over.
template <class T>
py::array to_array(Arena<T>& from, const py::dtype& type, std::vector<py::ssize_t> shape) {
  constexpr std::size_t HAND_OVER = std::size_t{64} << 20;
  if (from.size() * sizeof(T) < HAND_OVER) {
    py::array out(type, shape);
    if (!from.empty()) std::memcpy(out.mutable_data(), from.data(), from.size() * sizeof(T));
    from.clear();
    return out;
  }
  T* data = from.release();
  py::capsule owner(data, [](void* p) { std::free(p); });
  return py::array(type, std::move(shape), {}, data, owner);
}

template <class T>
py::array take(Arena<T>& from, const char* name) {
  return to_array(from, record(name), {static_cast<py::ssize_t>(from.size())});
}

// Contiguous array of one of our records.
template <class T>
T* records_of(const py::array& a, const char* name, bool write = false) {
  if (a.ndim() != 1 || !a.dtype().equal(record(name)) || !(a.flags() & py::array::c_style)) {
    throw py::type_error(std::string("expected a contiguous 1-d array of microrisk.spec.records.") + name);
  }
  if (write && !a.writeable()) throw py::value_error("the output array is read-only");
  return static_cast<T*>(const_cast<void*>(a.data()));
}

}  // namespace microrisk
