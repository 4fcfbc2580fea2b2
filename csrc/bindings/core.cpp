// fastllc._core: the native interface for Python. Tables come as structured arrays whose layout
// is that of the structs in step.h; their sizes are checked here, the addresses in them before,
// in python/fastllc/kernels.py.
#include <pybind11/native_enum.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../cpu/dispatch.h"
#include "../minibatch.h"
#include "../scalar.h"
#include "../step.h"

namespace py = pybind11;
using namespace fastllc;

namespace {

template <class T>
using Table = py::array_t<T, py::array::c_style>;

template <class T>
void expect_size(const Table<T>& table, std::int64_t size, const char* name) {
    if (table.size() != size)
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(size) +
                                    " items, got " + std::to_string(table.size()));
}

// The tables of a step, checked once and kept alive: a call then costs a microsecond, not ten.
class StepTables {
public:
    StepTables(Rule rule, Table<Segment> segments, Table<Chain> chains, Table<Setting> settings,
               Table<double> moments, Table<std::int64_t> nonfinite)
        : rule_(rule), segments_(std::move(segments)), chains_(std::move(chains)),
          settings_(std::move(settings)), moments_(std::move(moments)),
          nonfinite_(std::move(nonfinite)) {
        const std::int64_t n = segments_.size(), k = chains_.size();
        for (std::int64_t i = 0; i < n; ++i)
            if (const std::int64_t group = segments_.data()[i].group;
                group < 0 || (group + 1) * k > settings_.size())
                throw std::invalid_argument("settings must have a row for group " +
                                            std::to_string(group));
        expect_size(moments_, k * n * kMoments, "moments");
        expect_size(nonfinite_, k * n, "nonfinite");
    }

    // Where the next steps leave their sketches; None: nowhere.
    void sketch(std::optional<Table<double>> tables, std::uint64_t seed) {
        std::int64_t dim = 0;
        if (tables) {
            dim = tables->size() / (chains_.size() * kComponents);
            if (dim < 1 || dim > kMaxSketch)
                throw std::invalid_argument("tables must have [1, " + std::to_string(kMaxSketch) +
                                            "] buckets, got " + std::to_string(dim));
            expect_size(*tables, chains_.size() * kComponents * dim, "tables");
        }
        tables_ = std::move(tables);
        sketches_ = {tables_ ? tables_->mutable_data() : nullptr, dim, seed};
    }

    // Returns the number of non-finite weights after the step.
    std::int64_t run(bool moments, int threads) {
        const Step arguments{rule_,
                             segments_.data(),
                             segments_.size(),
                             chains_.mutable_data(),
                             chains_.size(),
                             settings_.data(),
                             moments ? moments_.mutable_data() : nullptr,
                             sketches_,
                             nonfinite_.mutable_data(),
                             threads};
        const py::gil_scoped_release release;
        return step(arguments);
    }

private:
    Rule rule_;
    Table<Segment> segments_;
    Table<Chain> chains_;
    Table<Setting> settings_;
    Table<double> moments_;
    Table<std::int64_t> nonfinite_;
    std::optional<Table<double>> tables_;
    Sketches sketches_{};
};

void standard_normal_(DType dtype, std::uint64_t out, std::int64_t numel, std::int64_t first,
                      std::uint64_t key, std::uint32_t step, std::uint32_t param, int threads) {
    const py::gil_scoped_release release;
    standard_normal(dtype, reinterpret_cast<void*>(out), numel, first, key, step, param, threads);
}

double localization_penalty_(DType dtype, const Table<Pair>& pairs, double strength, int threads) {
    const py::gil_scoped_release release;
    return localization_penalty(dtype, pairs.data(), pairs.size(), strength, threads);
}

template <class Index>
void order_samples_(const Table<std::uint64_t>& keys, std::uint32_t epoch, std::int64_t n,
                    bool replacement, Table<Index> out, int threads) {
    const std::int64_t count = keys.size() ? out.size() / keys.size() : 0;
    expect_size(out, keys.size() * count, "out");
    if (!replacement && count > n)
        throw std::invalid_argument("out must have rows of at most " + std::to_string(n) +
                                    " items, got " + std::to_string(count));
    Index* const to = out.mutable_data();
    const py::gil_scoped_release release;
    order_samples(keys.data(), keys.size(), epoch, n, replacement, to, count, threads);
}

template <class Index>
void take_rows_(const Table<Samples>& tensors, const py::array_t<Index, 0>& index, int threads) {
    constexpr py::ssize_t item = sizeof(Index);
    if (index.ndim() != 2 || (index.strides(1) != item && index.shape(1) > 1))
        throw std::invalid_argument("index must be [chain, batch] with contiguous rows");
    const std::int64_t stride = index.strides(0) / item;
    const py::gil_scoped_release release;
    take_rows(tensors.data(), tensors.size(), index.data(), index.shape(0), stride, index.shape(1),
              threads);
}

// The two halves of Box-Muller for an array of random words, for tests of their accuracy.
template <class L>
py::tuple box_muller_parts(const Table<typename L::Word>& words) {
    using T = typename L::Scalar;
    Table<T> log(words.size()), sine(words.size()), cosine(words.size());
    for (py::ssize_t i = 0; i < words.size(); ++i) {
        log.mutable_data()[i] = noise::minus_two_log<L>(words.data()[i]);
        noise::sincos_turn<L>(words.data()[i], sine.mutable_data()[i], cosine.mutable_data()[i]);
    }
    return py::make_tuple(log, sine, cosine);
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    m.doc() = "Native kernels of fastllc for the CPU.";

    PYBIND11_NUMPY_DTYPE(Segment, w, grad, w0, mask, momentum, square_avg, residual, numel, first,
                         param, group, born, dtype, w_stride, w0_stride, mask_stride);
    PYBIND11_NUMPY_DTYPE(Setting, lr, nbeta, localization, weight_decay, noise_level, bounding_box,
                         alpha, eps, start, corrected, adapt_steps, beta, friction);
    PYBIND11_NUMPY_DTYPE(Chain, key, step, active, thermostat, anchor);
    PYBIND11_NUMPY_DTYPE(Pair, w, w0, out, numel);
    PYBIND11_NUMPY_DTYPE(Samples, source, target, width, item, columns_first);
    m.attr("SAMPLES") = py::dtype::of<Samples>();
    m.attr("SEGMENT") = py::dtype::of<Segment>();
    m.attr("SETTING") = py::dtype::of<Setting>();
    m.attr("CHAIN") = py::dtype::of<Chain>();
    m.attr("PAIR") = py::dtype::of<Pair>();
    m.attr("NOISE_FORMAT") = noise::kFormat;
    m.attr("VERSION") = FASTLLC_VERSION;
    m.attr("COMPILER") = FASTLLC_COMPILER;
    m.attr("MAX_SKETCH") = kMaxSketch;
    m.attr("COMPONENTS") =
        py::make_tuple("scaled_grad", "unscaled_grad", "localization", "weight_decay", "noise");
    m.attr("MOMENTS") = py::make_tuple("aa", "pp", "nn", "ap", "an", "pn", "ww", "gg", "dd", "gd",
                                       "ac", "cn", "cc");

    py::native_enum<DType>(m, "DType", "enum.IntEnum")
        .value("float32", DType::float32)
        .value("float64", DType::float64)
        .value("bfloat16", DType::bfloat16)
        .value("float16", DType::float16)
        .finalize();
    py::native_enum<Rule>(m, "Rule", "enum.IntEnum")
        .value("sgld", Rule::sgld)
        .value("rmsprop", Rule::rmsprop)
        .value("adam", Rule::adam)
        .value("sghmc", Rule::sghmc)
        .value("sgnht", Rule::sgnht)
        .value("baoab", Rule::baoab)
        .finalize();

    m.def("isa", [] { return cpu::isa().name; });
    py::class_<StepTables>(m, "StepTables")
        .def(py::init<Rule, Table<Segment>, Table<Chain>, Table<Setting>, Table<double>,
                      Table<std::int64_t>>(),
             py::arg("rule"), py::arg("segments").noconvert(), py::arg("chains").noconvert(),
             py::arg("settings").noconvert(), py::arg("moments").noconvert(),
             py::arg("nonfinite").noconvert())
        .def("sketch", &StepTables::sketch, py::arg("tables").noconvert(), py::arg("seed"))
        .def("run", &StepTables::run, py::arg("moments"), py::arg("threads"));
    m.def("standard_normal", &standard_normal_, py::arg("dtype"), py::arg("out"), py::arg("numel"),
          py::arg("first"), py::arg("key"), py::arg("step"), py::arg("param"), py::arg("threads"));
    m.def("localization_penalty", &localization_penalty_, py::arg("dtype"), py::arg("pairs"),
          py::arg("strength"), py::arg("threads"));
    const auto minibatches = [&](auto index) {
        using Index = decltype(index);
        m.def("order_samples", &order_samples_<Index>, py::arg("keys").noconvert(),
              py::arg("epoch"), py::arg("n"), py::arg("replacement"), py::arg("out").noconvert(),
              py::arg("threads"));
        m.def("take_rows", &take_rows_<Index>, py::arg("tensors").noconvert(),
              py::arg("index").noconvert(), py::arg("threads"));
    };
    minibatches(std::int32_t{});
    minibatches(std::int64_t{});
    m.def("box_muller_parts_float32", &box_muller_parts<scalar::Single>, py::arg("words"));
    m.def("box_muller_parts_float64", &box_muller_parts<scalar::Double>, py::arg("words"));
}
