#include "run.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "device_api.h"

namespace fastllc::cuda {
namespace {

std::int64_t placings(const Launch& launch) {
    const auto n = static_cast<std::int64_t>(launch.entries.size());
    return n <= kInline ? 0 : (n + kPlaced - 1) / kPlaced;
}

Arguments arguments(const Pack& all, const Layout& places, std::uint64_t workspace) {
    Arguments a{};
    a.n_chains = all.n_chains;
    a.n_segments = all.n_segments;
    a.n_chunks = all.n_chunks;
    a.n_spans = all.n_spans;
    a.n_ctas = all.n_ctas;
    a.workspace = place(places, workspace);
    return a;
}

// What each launch is told. Entries go with the kernel's arguments or, of many, ahead of it into
// the workspace.
std::vector<Arguments> place_all(const Pack& all, const Arguments& common, void* stream) {
    std::vector<Arguments> each(all.launches.size(), common);
    Entry* table = common.workspace.table;
    for (std::size_t i = 0; i < each.size(); ++i) {
        const Launch& launch = all.launches[i];
        const auto n = static_cast<std::int64_t>(launch.entries.size());
        each[i].n_entries = n;
        each[i].tile = launch.tile;
        each[i].first_chain = launch.first_chain;
        if (placings(launch) == 0) {
            std::copy(launch.entries.begin(), launch.entries.end(), each[i].entries);
            continue;
        }
        each[i].table = table;
        for (std::int64_t from = 0; from < n; from += kPlaced) {
            Placing placing{table + from, std::min<std::int64_t>(kPlaced, n - from), {}};
            std::copy_n(launch.entries.begin() + from, placing.n, placing.entries);
            place_entries(placing, stream);
        }
        table += n;
    }
    return each;
}

// Asks where memory lies, which during capture one must not.
void expect_on_device(const std::string& name, std::uint64_t address, int device) {
    if (const int found = address == 0 ? -1 : device_of(address); found != device)
        throw std::invalid_argument(name + " must be in the memory of CUDA device " +
                                    std::to_string(device) + ", got " +
                                    (address == 0 ? "no address"
                                     : found < 0  ? "an address of the host"
                                                  : "one on device " + std::to_string(found)));
}

// The gradient of a penalty goes to its momentum.
std::vector<Segment> segments_of(DType dtype, const Pair* pairs, std::int64_t n) {
    std::vector<Segment> segments(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < segments.size(); ++i) {
        Segment& s = segments[i];
        s.w = s.grad = pairs[i].w, s.w0 = pairs[i].w0, s.momentum = pairs[i].out;
        s.numel = pairs[i].numel;
        s.dtype = dtype;
        if (s.w0 == 0 && s.numel > 0)
            throw std::invalid_argument("pairs[" + std::to_string(i) +
                                        "].w0 must be an address, got 0");
    }
    check(Rule::sgld, segments.data(), n, 1, 1);
    return segments;
}

bool wide(DType dtype) {
    if (dtype != DType::float32 && dtype != DType::float64)
        throw std::invalid_argument("dtype must be float32 or float64, got number " +
                                    std::to_string(static_cast<std::int64_t>(dtype)));
    return dtype == DType::float64;
}

}  // namespace

Stepper::Stepper(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
                 std::int64_t n_groups)
    : rule_(rule), segments_(segments), n_segments_(n_segments), n_chains_(n_chains),
      n_groups_(n_groups), packs_{} {
    packed(false);
}

const Pack& Stepper::packed(bool sums) {
    const auto n = static_cast<std::size_t>(n_segments_);
    if (seen_.size() != n || std::memcmp(seen_.data(), segments_, n * sizeof(Segment)) != 0) {
        check(rule_, segments_, n_segments_, n_chains_, n_groups_);
        seen_.assign(segments_, segments_ + n);
        packs_[0].launches.clear();
        packs_[1].launches.clear();
    }
    Pack& found = packs_[sums];
    if (found.launches.empty()) found = pack(rule_, segments_, n_segments_, n_chains_, sums);
    return found;
}

std::int64_t Stepper::workspace(bool moments, std::int64_t sketch_dim) {
    const bool summed = sums(moments, sketch_dim);
    return layout(packed(summed), summed, sketch_dim).bytes;
}

std::int64_t Stepper::launches(bool moments, std::int64_t sketch_dim) {
    std::int64_t n = sketch_dim > 0;
    for (const Launch& launch : packed(sums(moments, sketch_dim)).launches)
        n += placings(launch) + (sketch_dim > 0 ? 2 : 1);
    return n;
}

// Only addresses that were others in the last step are asked for: each takes a tenth of a
// microsecond.
void Stepper::expect_on(int device, const Buffers& b) {
    std::size_t at = 0;
    const auto expect = [&](const auto& name, std::uint64_t address) {
        if (at == places_.size()) places_.push_back(0);
        if (places_[at] != address || address == 0) expect_on_device(name(), address, device);
        places_[at++] = address;
    };
    const auto buffer = [&](const char* name, const void* address) {
        expect([&] { return std::string(name); }, reinterpret_cast<std::uint64_t>(address));
    };
    buffer("chains", b.chains);
    buffer("settings", b.settings);
    buffer("nonfinite", b.nonfinite);
    buffer("workspace", reinterpret_cast<const void*>(b.workspace));
    for (std::int64_t i = 0; i < n_segments_; ++i)
        for (const Array& array : arrays(rule_, segments_[i]))
            if (array.base != 0 && segments_[i].numel > 0)
                expect([&] { return "segments[" + std::to_string(i) + "]." + array.name; },
                       array.base);
    if (b.moments) buffer("moments", b.moments);
    if (b.sketches.tables) buffer("sketches", b.sketches.tables);
}

void Stepper::run(const Buffers& b, int device, void* stream) {
    const std::int64_t dim = b.sketches.tables ? b.sketches.dim : 0;
    if (dim < 0 || dim > kMaxSketch || (b.sketches.tables && dim == 0))
        throw std::invalid_argument("sketch_dim must be in [1, " + std::to_string(kMaxSketch) +
                                    "], got " + std::to_string(dim));
    const bool summed = sums(b.moments != nullptr, dim);
    const Pack& all = packed(summed);
    const OnDevice current(device);
    if (!capturing(stream)) expect_on(device, b);
    const Layout places = layout(all, summed, dim);
    Arguments common = arguments(all, places, b.workspace);
    common.rule = rule_;
    common.chains = b.chains;
    common.settings = b.settings;
    common.moments = b.moments;
    common.sketches = b.sketches;
    common.nonfinite = b.nonfinite;
    std::vector<Arguments> each = place_all(all, common, stream);
    const auto launch_all = [&](auto kernel) {
        for (std::size_t i = 0; i < each.size(); ++i)
            kernel(kernels(all.launches[i].dtype), each[i], all.launches[i].grid);
    };
    if (dim > 0) {
        const std::vector<Strips> shares = strips(all, dim);
        for (std::size_t i = 0; i < each.size(); ++i) {
            each[i].strips = shares[i];
            each[i].strips.tables =
                reinterpret_cast<double*>(b.workspace + static_cast<std::uint64_t>(places.strips));
        }
        launch_all([&](const Kernels& with, const Arguments& a, Grid grid) {
            with.sketch(a, grid, stream);
        });
        add_sketches(each[0], stream);
    }
    // The last CTA of these moves the chains on.
    launch_all([&](const Kernels& with, const Arguments& a, Grid grid) {
        with.step(a, grid, summed, stream);
    });
}

void standard_normal(DType dtype, std::uint64_t out, std::int64_t numel, std::int64_t first,
                     std::uint64_t key, std::uint32_t step, std::uint32_t param, int device,
                     void* stream) {
    const bool doubles = wide(dtype);
    Segment s{};
    s.w = s.grad = out, s.numel = numel, s.first = first, s.dtype = dtype, s.param = param;
    check(Rule::sgld, &s, 1, 1, 1);
    if (numel == 0) return;
    const OnDevice current(device);
    if (!capturing(stream)) expect_on_device("out", out, device);
    const Pack one = pack(Rule::sgld, &s, 1, 1, false);
    const Launch& launch = one.launches[0];
    fill({out, numel, first, key, step, param, launch.tile, launch.entries[0].aligned != 0},
         doubles, launch.grid.tiles, stream);
}

std::int64_t localization_workspace(DType dtype, const Pair* pairs, std::int64_t n) {
    wide(dtype);
    const std::vector<Segment> segments = segments_of(dtype, pairs, n);
    return layout(pack(Rule::sgld, segments.data(), n, 1, true), true, 0).bytes;
}

void localization_penalty(DType dtype, const Pair* pairs, std::int64_t n, double strength,
                          double* result, std::uint64_t workspace, int device, void* stream) {
    const bool doubles = wide(dtype);
    const std::vector<Segment> segments = segments_of(dtype, pairs, n);
    const OnDevice current(device);
    if (!capturing(stream)) {
        expect_on_device("result", reinterpret_cast<std::uint64_t>(result), device);
        expect_on_device("workspace", workspace, device);
        for (std::size_t i = 0; i < segments.size(); ++i)
            for (const Array& array : arrays(Rule::sgld, segments[i]))
                if (array.base != 0 && segments[i].numel > 0)
                    expect_on_device(
                        "pairs[" + std::to_string(i) + "]." +
                            (array.name == std::string("momentum") ? "out" : array.name),
                        array.base, device);
    }
    const Pack all = pack(Rule::sgld, segments.data(), n, 1, true);
    Arguments common = arguments(all, layout(all, true, 0), workspace);
    common.penalty = {strength, result};
    const Arguments a = place_all(all, common, stream)[0];  // one dtype, one chain
    penalize(a, doubles, all.launches[0].grid.tiles, stream);
}

}  // namespace fastllc::cuda
