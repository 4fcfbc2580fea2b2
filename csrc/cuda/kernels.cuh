// Included once for each dtype.
#pragma once

#include "cta.h"
#include "device_api.h"
#include "kernels.h"
#include "sketches.h"

namespace fastllc::cuda {
namespace {

// The more CTAs on a multiprocessor, the more loads are on their way: as many as there are
// registers for without spilling any (bench/results/cuda-resources.md).
template <class P, class R, bool kSums, bool kWide = sizeof(typename P::Real) == 8>
constexpr int kResident =
    kSums ? 2 - kWide : 4 - kWide - (R::kHasSquareAvg && (P::kLow || (kWide && R::kHasMomentum)));

template <class P, class R, bool kSums>
__global__ void __launch_bounds__(kThreads, kResident<P, R, kSums>)
    step_kernel(const __grid_constant__ Arguments a) {
    __shared__ Shared<P, R, kSums> shared;
    step_cta<P, R, kSums>(a, blockIdx.x, blockIdx.y, shared);
}

template <class P, class R>
__global__ void __launch_bounds__(kThreads, 2)
    sketch_kernel(const __grid_constant__ Arguments a, std::int64_t tiles, bool fit) {
    __shared__ SketchShared<P, R> shared;
    extern __shared__ double tables[];
    sketch_cta<P, R>(a, blockIdx.x, blockIdx.y, tiles, shared,
                     fit ? reinterpret_cast<typename P::Real*>(tables) : nullptr);
}

template <class P>
void sketch(const Arguments& a, Grid grid, void* stream) {
    using T = typename P::Real;
    of_family<T>(a.rule, [&](auto family) {
        using R = typename decltype(family)::Type;
        const bool fit = fits<P, R>(a.sketches.dim);
        const std::size_t bytes =
            fit ? std::size_t(kComponents * (a.sketches.dim + kRow - 1)) * sizeof(T) : 0;
        const dim3 ctas(unsigned(a.strips.n), unsigned(grid.chains));
        sketch_kernel<P, R>
            <<<ctas, kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(a, grid.tiles, fit);
        check_launch("sketch");
    });
}

template <class P>
void step(const Arguments& a, Grid grid, bool sums, void* stream) {
    of_family<typename P::Real>(a.rule, [&](auto family) {
        using R = typename decltype(family)::Type;
        const dim3 ctas(unsigned(grid.tiles), unsigned(grid.chains));
        auto* const to = static_cast<cudaStream_t>(stream);
        if (sums)
            step_kernel<P, R, true><<<ctas, kThreads, 0, to>>>(a);
        else
            step_kernel<P, R, false><<<ctas, kThreads, 0, to>>>(a);
        check_launch("step");
    });
}

}  // namespace
}  // namespace fastllc::cuda
