// The kernels, one table for each dtype, instantiated in a file of its own. The emulation has the
// same table, in which a launch is a loop.
#pragma once

#include <cstdint>

#include "../rules.h"
#include "arguments.h"

namespace fastllc::cuda {

// Tiles by chains.
struct Grid {
    std::int64_t tiles, chains;
};

struct Kernels {
    void (*step)(const Arguments&, Grid, bool sums, void* stream);
    void (*sketch)(const Arguments&, Grid, void* stream);  // into strips
};

// Copies entries to the device.
void place_entries(const Placing& placing, void* stream);
// Adds up the sketches of strips.
void add_sketches(const Arguments& a, void* stream);
// In double or in single precision.
void fill(const Filling& filling, bool wide, std::int64_t tiles, void* stream);
void penalize(const Arguments& a, bool wide, std::int64_t tiles, void* stream);

extern const Kernels float32_kernels, float64_kernels, bfloat16_kernels, float16_kernels;

inline const Kernels& kernels(DType dtype) {
    switch (dtype) {
    case DType::float64:
        return float64_kernels;
    case DType::bfloat16:
        return bfloat16_kernels;
    case DType::float16:
        return float16_kernels;
    default:
        return float32_kernels;
    }
}

// Calls go(Family<R>{}) with the struct of rules.h that computes in T.
template <class R>
struct Family {
    using Type = R;
};
template <class T, class Go>
void of_family(Rule rule, Go go) {
    switch (rule) {
    case Rule::sgld:
        return go(Family<Langevin<T>>{});
    case Rule::rmsprop:
        return go(Family<Preconditioned<T, false>>{});
    case Rule::adam:
        return go(Family<Preconditioned<T, true>>{});
    case Rule::sghmc:
    case Rule::baoab:
    case Rule::sgnht:
        return go(Family<Momentum<T>>{});
    }
}

}  // namespace fastllc::cuda
