// fastllc._cuda: the native interface for Python where memory is an NVIDIA GPU's. Addresses are
// those of tensors on `device`; every call only queues work on the stream that it is given.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>

#include "../cuda/device_api.h"
#include "../cuda/run.h"
#include "../noise.h"
#include "rows.h"

namespace py = pybind11;
using namespace fastllc;

namespace {

void* pointer(std::uint64_t address) { return reinterpret_cast<void*>(address); }

class Steps {
public:
    Steps(std::int64_t rule, py::array segments, std::int64_t n_chains, std::int64_t n_groups,
          int device)
        : segments_(std::move(segments), "segments"),
          stepper_(static_cast<Rule>(rule), segments_.data(), segments_.size(), n_chains, n_groups),
          device_(device) {}

    std::int64_t workspace(bool moments, std::int64_t sketch_dim) {
        return stepper_.workspace(moments, sketch_dim);
    }
    std::int64_t launches(bool moments, std::int64_t sketch_dim) {
        return stepper_.launches(moments, sketch_dim);
    }
    void run(std::uint64_t stream, std::uint64_t chains, std::uint64_t settings,
             std::uint64_t nonfinite, std::uint64_t moments, std::uint64_t sketches,
             std::int64_t sketch_dim, std::uint64_t sketch_seed, std::uint64_t workspace) {
        const py::gil_scoped_release release;
        stepper_.run({static_cast<Chain*>(pointer(chains)),
                      static_cast<const Setting*>(pointer(settings)),
                      static_cast<std::int64_t*>(pointer(nonfinite)),
                      static_cast<double*>(pointer(moments)),
                      {static_cast<double*>(pointer(sketches)), sketch_dim, sketch_seed},
                      workspace},
                     device_, pointer(stream));
    }

private:
    Rows<Segment> segments_;
    cuda::Stepper stepper_;
    int device_;
};

void standard_normal_(std::int64_t dtype, std::uint64_t out, std::int64_t numel, std::int64_t first,
                      std::uint64_t key, std::uint32_t step, std::uint32_t param, int device,
                      std::uint64_t stream) {
    const py::gil_scoped_release release;
    cuda::standard_normal(static_cast<DType>(dtype), out, numel, first, key, step, param, device,
                          pointer(stream));
}

std::int64_t localization_workspace_(std::int64_t dtype, py::array table) {
    const Rows<Pair> pairs(std::move(table), "pairs");
    return cuda::localization_workspace(static_cast<DType>(dtype), pairs.data(), pairs.size());
}

void localization_penalty_(std::int64_t dtype, py::array table, double strength, int device,
                           std::uint64_t stream, std::uint64_t result, std::uint64_t workspace) {
    const Rows<Pair> pairs(std::move(table), "pairs");
    const py::gil_scoped_release release;
    cuda::localization_penalty(static_cast<DType>(dtype), pairs.data(), pairs.size(), strength,
                               static_cast<double*>(pointer(result)), workspace, device,
                               pointer(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
    m.doc() = "Native kernels of fastllc for NVIDIA GPUs.";
    m.attr("VERSION") = FASTLLC_VERSION;
    m.attr("NOISE_FORMAT") = noise::kFormat;
    m.attr("RUNTIME") = cuda::runtime_version();
    m.attr("ARCHITECTURES") = cuda::architectures();
    m.attr("COMPILER") = cuda::compiler();
    m.def("driver", &cuda::driver_version);
    py::class_<Steps>(m, "Step")
        .def(py::init<std::int64_t, py::array, std::int64_t, std::int64_t, int>(), py::arg("rule"),
             py::arg("segments"), py::arg("n_chains"), py::arg("n_groups"), py::arg("device"))
        .def("workspace", &Steps::workspace, py::arg("moments"), py::arg("sketch_dim"))
        .def("launches", &Steps::launches, py::arg("moments"), py::arg("sketch_dim"))
        .def("run", &Steps::run, py::arg("stream"), py::arg("chains"), py::arg("settings"),
             py::arg("nonfinite"), py::arg("moments"), py::arg("sketches"), py::arg("sketch_dim"),
             py::arg("sketch_seed"), py::arg("workspace"));
    m.def("standard_normal", &standard_normal_, py::arg("dtype"), py::arg("out"), py::arg("numel"),
          py::arg("first"), py::arg("key"), py::arg("step"), py::arg("param"), py::arg("device"),
          py::arg("stream"));
    m.def("localization_workspace", &localization_workspace_, py::arg("dtype"), py::arg("pairs"));
    m.def("localization_penalty", &localization_penalty_, py::arg("dtype"), py::arg("pairs"),
          py::arg("strength"), py::arg("device"), py::arg("stream"), py::arg("result"),
          py::arg("workspace"));
}
