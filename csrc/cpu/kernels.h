// What every instruction set provides: one table of kernels, and the run of elements they work on.
#pragma once

#include <cstdint>

#include "../noise.h"
#include "../sketch.h"
#include "../step.h"

namespace fastllc::cpu {

// The arrays of a run, in the order in which their addresses are given.
enum Array : int { kW, kGrad, kAnchor, kMomentum, kSquareAvg, kResidual, kArrays };

// The elements [first, first + numel) of one tensor; it never crosses a multiple of kChunk. A null
// array is not there, a null mask stands for every element.
struct Run {
    void* array[kArrays];
    const std::uint8_t* mask;
    std::int64_t first, numel;
};

struct Sums {
    double moments[(kMoments + 3) / 4 * 4] = {};  // padded to whole groups of four
    double kinetic = 0;                           // squares of the momentum after the step
    std::int64_t updated = 0;                     // elements
    std::int64_t nonfinite = 0;                   // of these, after the step
};

// Where a step's noise comes from. The words of other streams follow from those of the proposal.
struct Source {
    std::uint64_t key;
    std::uint32_t step, param;
};

// Where the components of a step are sketched: tables[component][stride], of which the first
// dim + kRow - 1 are used, in the precision of the arithmetic; null: not wanted.
struct Sketching {
    std::uint64_t seed;
    std::int64_t dim, stride;
    void* tables;
};

struct Kernels {
    // One step. Moments are summed if wanted, non-finite weights are always counted.
    void (*step)(Rule, DType, const Run&, const Setting&, const Walker&, const Source&,
                 bool moments, const Sketching&, Sums&);
    // w = standard normals.
    void (*normal)(DType, const Run&, const Source&);
    // moments[dd] += ||w - w0||^2, and momentum = scale * (w - w0) unless that is null; w is kGrad.
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
