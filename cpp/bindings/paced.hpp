// The paced replay's part of microrisk._core.
#pragma once

#include <pybind11/pybind11.h>

namespace microrisk {

void bind_paced(pybind11::module_& m);

}  // namespace microrisk
