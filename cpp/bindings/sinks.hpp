// What an engine records, and tables of it.
#pragma once

#include <pybind11/pybind11.h>

#include "engine_object.hpp"

namespace microrisk {

void bind_sinks(pybind11::class_<PyEngine>& c);
void bind_tables(pybind11::module_& m);

}  // namespace microrisk
