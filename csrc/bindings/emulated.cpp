// fastllc._emulated: the kernels of _cuda on the host, for tests; memory is the host's.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <map>

#include "../cuda/emulated.h"
#include "../cuda/run.h"
#include "rows.h"

namespace py = pybind11;
using namespace fastllc;

namespace {

template <class T>
T* pointer(std::uint64_t address) {
    return reinterpret_cast<T*>(address);
}

class Steps {
public:
    Steps(std::int64_t rule, py::array segments, std::int64_t n_chains, std::int64_t n_groups)
        : segments_(std::move(segments), "segments"),
          stepper_(static_cast<Rule>(rule), segments_.data(), segments_.size(), n_chains,
                   n_groups) {}

    std::int64_t workspace(bool moments, std::int64_t sketch_dim) {
        return stepper_.workspace(moments, sketch_dim);
    }
    std::int64_t launches(bool moments, std::int64_t sketch_dim) {
        return stepper_.launches(moments, sketch_dim);
    }
    void run(std::uint64_t seed, std::uint64_t chains, std::uint64_t settings,
             std::uint64_t nonfinite, std::uint64_t moments, std::uint64_t sketches,
             std::int64_t sketch_dim, std::uint64_t sketch_seed, std::uint64_t workspace) {
        cuda::emulated::seed = seed;
        stepper_.run({pointer<Chain>(chains),
                      pointer<Setting>(settings),
                      pointer<std::int64_t>(nonfinite),
                      pointer<double>(moments),
                      {pointer<double>(sketches), sketch_dim, sketch_seed},
                      workspace},
                     0, nullptr);
    }

private:
    Rows<Segment> segments_;
    cuda::Stepper stepper_;
};

// What a launch is made of: entries by (segment, first tile, first chunk, first span, aligned).
py::list pack(std::int64_t rule, py::array table, std::int64_t n_chains, std::int64_t n_groups,
              bool sums) {
    const Rows<Segment> segments(std::move(table), "segments");
    cuda::check(static_cast<Rule>(rule), segments.data(), segments.size(), n_chains, n_groups);
    py::list launches;
    for (const auto& l :
         cuda::pack(static_cast<Rule>(rule), segments.data(), segments.size(), n_chains, sums)
             .launches) {
        py::list entries;
        for (const auto& e : l.entries)
            entries.append(py::make_tuple(e.index, e.tiles, e.chunks, e.spans, e.aligned != 0));
        launches.append(py::make_tuple(static_cast<std::int64_t>(l.dtype), l.tile, l.first_chain,
                                       l.grid.tiles, l.grid.chains, entries));
    }
    return launches;
}

void standard_normal_(std::int64_t dtype, std::uint64_t out, std::int64_t numel, std::int64_t first,
                      std::uint64_t key, std::uint32_t step, std::uint32_t param) {
    cuda::standard_normal(static_cast<DType>(dtype), out, numel, first, key, step, param, 0,
                          nullptr);
}

std::int64_t localization_workspace_(std::int64_t dtype, py::array table) {
    const Rows<Pair> pairs(std::move(table), "pairs");
    return cuda::localization_workspace(static_cast<DType>(dtype), pairs.data(), pairs.size());
}

double localization_penalty_(std::int64_t dtype, py::array table, double strength,
                             std::uint64_t workspace) {
    const Rows<Pair> pairs(std::move(table), "pairs");
    double result = 0;
    cuda::localization_penalty(static_cast<DType>(dtype), pairs.data(), pairs.size(), strength,
                               &result, workspace, 0, nullptr);
    return result;
}

}  // namespace

PYBIND11_MODULE(_emulated, m, py::mod_gil_not_used()) {
    m.doc() = "The kernels of fastllc._cuda, one thread after another on the host.";
    py::class_<Steps>(m, "Step")
        .def(py::init<std::int64_t, py::array, std::int64_t, std::int64_t>(), py::arg("rule"),
             py::arg("segments"), py::arg("n_chains"), py::arg("n_groups"))
        .def("workspace", &Steps::workspace, py::arg("moments"), py::arg("sketch_dim"))
        .def("launches", &Steps::launches, py::arg("moments"), py::arg("sketch_dim"))
        .def("run", &Steps::run, py::arg("seed"), py::arg("chains"), py::arg("settings"),
             py::arg("nonfinite"), py::arg("moments"), py::arg("sketches"), py::arg("sketch_dim"),
             py::arg("sketch_seed"), py::arg("workspace"));
    m.def(
        "elsewhere",
        [](const std::map<std::uint64_t, int>& places) { cuda::emulated::elsewhere = places; },
        py::arg("places"));
    m.def("pack", &pack, py::arg("rule"), py::arg("segments"), py::arg("n_chains"),
          py::arg("n_groups"), py::arg("sums"));
    m.def("standard_normal", &standard_normal_, py::arg("dtype"), py::arg("out"), py::arg("numel"),
          py::arg("first"), py::arg("key"), py::arg("step"), py::arg("param"));
    m.def("localization_workspace", &localization_workspace_, py::arg("dtype"), py::arg("pairs"));
    m.def("localization_penalty", &localization_penalty_, py::arg("dtype"), py::arg("pairs"),
          py::arg("strength"), py::arg("workspace"));
}
