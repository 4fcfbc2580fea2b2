// What every instruction set provides: one table of kernels, and the run of elements they work on.
#pragma once

#include <cstdint>

#include "../noise.h"
#include "../step.h"

namespace fastllc::cpu {

// The elements [first, first + numel) of one tensor; it never crosses a multiple of kChunk.
// Kernels leave alone what they do not use; out may be w.
struct Run {
    void* out;
    const void* w;
    const void* grad;
    const void* w0;            // or null: no anchor
    const std::uint8_t* mask;  // or null: every element
    std::int64_t first, numel;
};

struct Sums {
    double moments[(kMoments + 3) / 4 * 4] = {};  // padded to whole groups of four
    std::int64_t nonfinite = 0;
};

struct Kernels {
    // One SGLD step. Moments are summed if wanted, non-finite weights are always counted.
    void (*sgld)(DType, const Run&, const Setting&, const noise::Address&, bool moments, Sums&);
    // out = standard normals.
    void (*normal)(DType, const Run&, const noise::Address&);
    // moments[dd] += ||w - w0||^2, and out = scale * (w - w0) unless out is null.
    void (*penalty)(DType, const Run&, double scale, Sums&);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace fastllc::cpu
