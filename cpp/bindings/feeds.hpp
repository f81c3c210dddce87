// The captures' parts of microrisk._core.
#pragma once

#include <pybind11/pybind11.h>

namespace microrisk {

void bind_capture(pybind11::module_& m);
void bind_iex(pybind11::module_& m);

}  // namespace microrisk
