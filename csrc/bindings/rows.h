// A table from Python by the size of its rows alone: _core has the names of their fields, and the
// modules that use this do not load it.
#pragma once

#include <pybind11/numpy.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace fastllc {

template <class T>
class Rows {
public:
    Rows(pybind11::array table, const char* name) : table_(std::move(table)) {
        if (table_.itemsize() != sizeof(T) || !(table_.flags() & pybind11::array::c_style))
            throw std::invalid_argument(std::string(name) + " must be contiguous rows of " +
                                        std::to_string(sizeof(T)) + " bytes, got rows of " +
                                        std::to_string(table_.itemsize()));
    }

    const T* data() const { return static_cast<const T*>(table_.data()); }
    std::int64_t size() const { return table_.size(); }

private:
    pybind11::array table_;
};

}  // namespace fastllc
