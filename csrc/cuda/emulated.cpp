// The kernels as loops over CTAs and their threads, on the host: the same text but for barriers and
// atomic operations, for tests where there is no GPU.
#include "emulated.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "cta.h"
#include "kernels.h"

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
                Shared<P, R, true> shared;
                step_cta<P, R, true>(a, tile, row, shared);
            } else {
                Shared<P, R, false> shared;
                step_cta<P, R, false>(a, tile, row, shared);
            }
        });
    });
}

}  // namespace

std::uint64_t emulated::seed = 0;

const Kernels float32_kernels{&step<Full<scalar::Single>>};
const Kernels float64_kernels{&step<Full<scalar::Double>>};
const Kernels bfloat16_kernels{&step<Bfloat16>};
const Kernels float16_kernels{&step<Float16>};

void place_entries(const Placing& placing, void*) {
    std::copy_n(placing.entries, placing.n, placing.table);
}

}  // namespace fastllc::cuda
