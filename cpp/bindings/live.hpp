// The live monitor's part of microrisk._core.
#pragma once

#include <pybind11/pybind11.h>

namespace microrisk {

void bind_live(pybind11::module_& m);

}  // namespace microrisk
