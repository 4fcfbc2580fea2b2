// The kernels as loops over CTAs and their threads, on the host: the same text but for barriers and
// atomic operations, for tests where there is no GPU.
#include "emulated.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "cta.h"
#include "device_api.h"
#include "kernels.h"
#include "others.h"
#include "sketches.h"

namespace fastllc::cuda {
namespace {

// CTAs come in any order; here in one that depends on the seed.
template <class Cta>
void each_cta(Grid grid, Cta cta) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(grid.tiles * grid.chains));
    std::iota(order.begin(), order.end(), 0);
    if (emulated::seed != 0)
        std::shuffle(order.begin(), order.end(), std::mt19937_64(emulated::seed));
    for (const std::int64_t i : order) cta(i % grid.tiles, i / grid.tiles);
}

template <class P>
void step(const Arguments& a, Grid grid, bool sums, void*) {
    of_family<typename P::Real>(a.rule, [&](auto family) {
        using R = typename decltype(family)::Type;
        each_cta(grid, [&](std::int64_t tile, std::int64_t row) {
            if (sums) {
                Shared<P, R, true> shared{};
                step_cta<P, R, true>(a, tile, row, shared);
            } else {
                Shared<P, R, false> shared{};
                step_cta<P, R, false>(a, tile, row, shared);
            }
        });
    });
}

template <class P>
void sketch(const Arguments& a, Grid grid, void*) {
    using T = typename P::Real;
    of_family<T>(a.rule, [&](auto family) {
        using R = typename decltype(family)::Type;
        each_cta({a.strips.n, grid.chains}, [&](std::int64_t strip, std::int64_t row) {
            SketchShared<P, R> shared{};
            std::vector<T> tables(std::size_t(kComponents * (a.sketches.dim + kRow - 1)));
            sketch_cta<P, R>(a, strip, row, grid.tiles, shared,
                             fits<P, R>(a.sketches.dim) ? tables.data() : nullptr);
        });
    });
}

}  // namespace

std::uint64_t emulated::seed = 0;
std::map<std::uint64_t, int> emulated::elsewhere;

OnDevice::OnDevice(int) {}
OnDevice::~OnDevice() {}
bool capturing(void*) { return false; }
int device_of(std::uint64_t address) {
    const auto found = emulated::elsewhere.find(address);
    return found == emulated::elsewhere.end() ? 0 : found->second;
}

const Kernels float32_kernels{&step<Full<scalar::Single>>, &sketch<Full<scalar::Single>>};
const Kernels float64_kernels{&step<Full<scalar::Double>>, &sketch<Full<scalar::Double>>};
const Kernels bfloat16_kernels{&step<Bfloat16>, &sketch<Bfloat16>};
const Kernels float16_kernels{&step<Float16>, &sketch<Float16>};

void place_entries(const Placing& placing, void*) {
    std::copy_n(placing.entries, placing.n, placing.table);
}

void add_sketches(const Arguments& a, void*) {
    each_cta({kComponents * a.sketches.dim, a.n_chains},
             [&](std::int64_t bucket, std::int64_t chain) { add_strips(a, bucket, chain); });
}

void fill(const Filling& f, bool wide, std::int64_t tiles, void*) {
    each_cta({tiles, 1}, [&](std::int64_t tile, std::int64_t) {
        wide ? fill_cta<scalar::Double>(f, tile) : fill_cta<scalar::Single>(f, tile);
    });
}

void penalize(const Arguments& a, bool wide, std::int64_t tiles, void*) {
    each_cta({tiles, 1}, [&](std::int64_t tile, std::int64_t) {
        PenaltyShared<scalar::Double> doubles{};
        PenaltyShared<scalar::Single> singles{};
        wide ? penalty_cta(a, tile, doubles) : penalty_cta(a, tile, singles);
    });
}

}  // namespace fastllc::cuda
