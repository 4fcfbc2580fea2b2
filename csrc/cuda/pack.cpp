#include "pack.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace fastllc::cuda {
namespace {

constexpr std::int64_t kMostChains = 65535;  // of a grid
// In all: their chunks, and much smaller tiles than these are not made of many, fit into a grid.
constexpr std::int64_t kMostElements = std::int64_t{1} << 44;
constexpr std::int64_t kMostCtas = std::int64_t{1} << 32;

[[noreturn]] void refuse(std::int64_t segment, const std::string& name, const std::string& expected,
                         const std::string& got) {
    throw std::invalid_argument("segments[" + std::to_string(segment) + "]." + name + " must be " +
                                expected + ", got " + got);
}

void check_range(std::int64_t segment, const char* name, std::int64_t value, std::int64_t low,
                 std::int64_t high) {
    if (value < low || value >= high)
        refuse(segment, name, "in [" + std::to_string(low) + ", " + std::to_string(high) + ")",
               std::to_string(value));
}

// Bytes of an element as it is stored, as it is computed with, and of what it cannot hold.
struct Sizes {
    std::int64_t stored, real, residual;
};
Sizes sizes(DType dtype) {
    switch (dtype) {
    case DType::float32:
        return {4, 4, 4};
    case DType::float64:
        return {8, 8, 8};
    case DType::bfloat16:
        return {2, 4, 2};
    case DType::float16:
        return {2, 4, 4};
    }
    return {1, 1, 1};
}

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Multiples of `size` elements of the whole tensor that a segment meets.
std::int64_t pieces(const Segment& s, std::int64_t size) {
    return s.numel == 0 ? 0 : divide_up(s.first + s.numel, size) - s.first / size;
}

// Whether every unit of every chain lies on a multiple of its size.
bool aligned(Rule rule, const Segment& s, std::int64_t n_chains) {
    const std::int64_t unit = s.dtype == DType::float64 ? 2 : 4;
    for (const Array& array : arrays(rule, s)) {
        if (array.base == 0) continue;
        const auto size = static_cast<std::uint64_t>(unit * array.size);
        if ((array.base - static_cast<std::uint64_t>(s.first * array.size)) % size != 0)
            return false;
        if (n_chains > 1 && array.stride % unit != 0) return false;
    }
    return true;
}

// Elements of a tile: small ones for small steps, so that they occupy the device; large ones cost
// less to begin.
std::int64_t tile_of(std::int64_t elements) {
    constexpr std::int64_t wanted = 2048;  // tiles: a few on each multiprocessor
    std::int64_t tile = 1024;
    while (tile < kChunk && elements / tile > wanted) tile *= 2;
    return tile;
}

}  // namespace

std::vector<Array> arrays(Rule rule, const Segment& s) {
    const auto [stored, real, residual] = sizes(s.dtype);
    const bool averages = rule == Rule::rmsprop || rule == Rule::adam;
    return {{"w", s.w, stored, s.w_stride, true},
            {"grad", s.grad, stored, s.w_stride, true},
            {"w0", s.w0, stored, s.w0_stride, false},
            {"mask", s.mask, 1, s.mask_stride, false},
            {"momentum", s.momentum, real, s.w_stride, rule != Rule::sgld && rule != Rule::rmsprop},
            {"square_avg", s.square_avg, real, s.w_stride, averages},
            {"residual", s.residual, residual, s.w_stride, false}};
}

void check(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
           std::int64_t n_groups) {
    if (rule < Rule::sgld || rule > Rule::baoab)
        throw std::invalid_argument("rule must be one of fastllc._core.Rule, got " +
                                    std::to_string(static_cast<std::int64_t>(rule)));
    if (n_segments < 1) throw std::invalid_argument("segments must have a row, got none");
    if (n_chains < 1 || n_chains > kMostElements)
        throw std::invalid_argument("n_chains must be in [1, 2^44], got " +
                                    std::to_string(n_chains));
    std::int64_t room = kMostElements / n_chains;
    for (std::int64_t i = 0; i < n_segments; ++i) {
        const Segment& s = segments[i];
        check_range(i, "dtype", static_cast<std::int64_t>(s.dtype), 0, 4);
        check_range(i, "group", s.group, 0, n_groups);
        check_range(i, "param", s.param, 0, std::int64_t{1} << 24);
        check_range(i, "numel", s.numel, 0, room + 1);
        room -= s.numel;
        check_range(i, "first", s.first, 0, kMostElements);
        for (const auto& [name, base, size, stride, needed] : arrays(rule, s)) {
            check_range(i, (std::string(name) + "'s stride").c_str(), stride, 0, kMostElements);
            if (needed && base == 0 && s.numel > 0) refuse(i, name, "an address", "0");
            if (base % static_cast<std::uint64_t>(size) != 0)
                refuse(i, name, "a multiple of " + std::to_string(size), std::to_string(base));
        }
    }
}

Pack pack(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
          bool sums) {
    Pack all{{}, n_chains, n_segments, 0, 0, 0};
    std::int64_t elements = 0;
    for (std::int64_t i = 0; i < n_segments; ++i) elements += segments[i].numel * n_chains;
    const std::int64_t tile = sums ? kChunk : tile_of(elements);
    std::vector<Launch> kinds;
    for (std::int64_t i = 0; i < n_segments; ++i) {
        const Segment& s = segments[i];
        auto kind = std::find_if(kinds.begin(), kinds.end(),
                                 [&](const Launch& l) { return l.dtype == s.dtype; });
        if (kind == kinds.end()) kind = kinds.insert(kind, {s.dtype, {}, tile, 0, {0, 0}});
        if (s.numel > 0) {
            kind->entries.push_back({s, kind->grid.tiles, all.n_chunks, all.n_spans,
                                     static_cast<std::int32_t>(i), aligned(rule, s, n_chains)});
            kind->grid.tiles += pieces(s, tile);
        }
        all.n_chunks += pieces(s, kChunk);
        all.n_spans += pieces(s, kSpan);
    }
    kinds.erase(std::remove_if(kinds.begin(), kinds.end(),
                               [](const Launch& kind) { return kind.entries.empty(); }),
                kinds.end());
    if (kinds.empty())
        kinds.push_back({segments[0].dtype, {{segments[0], 0, 0, 0, 0, 0}}, tile, 0, {1, 0}});
    for (Launch& kind : kinds)
        for (std::int64_t chain = 0; chain < n_chains; chain += kMostChains) {
            kind.first_chain = chain;
            kind.grid.chains = std::min(kMostChains, n_chains - chain);
            all.n_ctas += kind.grid.tiles * kind.grid.chains;
            all.launches.push_back(kind);
        }
    if (all.n_ctas >= kMostCtas)
        throw std::invalid_argument("a step must have less than 2^32 tiles of tensors, got " +
                                    std::to_string(all.n_ctas));
    return all;
}

std::vector<Strips> strips(const Pack& pack, std::int64_t dim) {
    const std::int64_t cells = kComponents * (dim + kRow - 1) * pack.n_chains;
    const std::int64_t most = std::clamp<std::int64_t>((std::int64_t{1} << 21) / cells, 4, 256);
    std::vector<Strips> found;
    std::int64_t first = 0, all = 0;
    for (const Launch& launch : pack.launches) {
        if (launch.first_chain == 0) first = all;  // chains of one kind have as many strips each
        const std::int64_t n = std::min(launch.grid.tiles, most);
        all = first + n;
        found.push_back({nullptr, first, n, 0});
    }
    for (Strips& own : found) own.all = all;
    return found;
}

Layout layout(const Pack& pack, bool sums, std::int64_t sketch_dim) {
    Layout l{};
    std::int64_t end = 8;  // all, any
    const auto take = [&](std::int64_t n, std::int64_t size) {
        const std::int64_t begin = divide_up(end, 16) * 16;
        end = begin + n * size;
        return begin;
    };
    const std::int64_t n_pieces = pack.n_chains * pack.n_segments;
    l.nonfinite = take(n_pieces, sizeof(std::int64_t));
    l.heat = take(n_pieces, sizeof(Heat));
    l.pieces = take(n_pieces, sizeof(std::uint32_t));
    l.spans = take(pack.n_chains * pack.n_spans, sizeof(std::uint32_t));
    l.table = take(pack.n_segments, sizeof(Entry));
    const std::int64_t rows = sums ? pack.n_chains : 0, row = kRowOfSums * sizeof(double);
    l.sums_of_chunk = take(rows * pack.n_chunks, row);
    l.sums_of_span = take(rows * pack.n_spans, row);
    const std::int64_t n_strips = sketch_dim > 0 ? strips(pack, sketch_dim)[0].all : 0;
    l.strips =
        take(pack.n_chains * n_strips * kComponents * (sketch_dim + kRow - 1), sizeof(double));
    l.bytes = end;
    return l;
}

Workspace place(const Layout& l, std::uint64_t base) {
    const auto at = [&](std::int64_t offset) {
        return reinterpret_cast<void*>(base + static_cast<std::uint64_t>(offset));
    };
    return {static_cast<std::uint32_t*>(at(0)),
            static_cast<std::uint32_t*>(at(4)),
            static_cast<std::uint32_t*>(at(l.spans)),
            static_cast<std::uint32_t*>(at(l.pieces)),
            static_cast<std::int64_t*>(at(l.nonfinite)),
            static_cast<Heat*>(at(l.heat)),
            static_cast<double*>(at(l.sums_of_chunk)),
            static_cast<double*>(at(l.sums_of_span)),
            static_cast<Entry*>(at(l.table))};
}

}  // namespace fastllc::cuda
