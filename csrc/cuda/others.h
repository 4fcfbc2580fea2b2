// Beside the step: standard normals alone, and the localization penalty.
#pragma once

#include "sums.h"

namespace fastllc::cuda {

template <class L>
FASTLLC_INLINE void fill_cta(const Filling& f, std::int64_t tile) {
    constexpr int n = L::kPerCounter;
    const std::int64_t first = (f.first / f.tile + tile) * f.tile;
    const Extent extent{int(most(f.first - first, 0)),
                        int(least(f.first + f.numel - first, f.tile)), f.aligned};
    const std::uint64_t out = at(f.out, first - f.first, sizeof(typename L::Real));
    each_thread([&](int thread) {
        for (int i = extent.begin / n + thread; i * n < extent.end; i += kThreads) {
            const noise::RoundKeys<std::uint64_t> keys(afresh(f.key));
            Unit<typename L::Real, n> z;
            scalar::normals<L>(keys, noise::address(f.step, noise::Stream::proposal, f.param),
                               std::uint64_t(first / n + i), z.x);
            extent.has_vector(i * n, n) ? z.store(out, i * n) : z.store(out, i * n, extent);
        }
    });
}

template <class L>
struct PenaltyShared {
    Place place;
    Sums<L> sums;
    bool done;
};

template <class L>
FASTLLC_INLINE void penalty_cta(const Arguments& a, std::int64_t tile, PenaltyShared<L>& s) {
    using T = typename L::Real;
    constexpr int n = L::kPerCounter, units = int(kBlock) / n;
    each_thread([&](int thread) {
        if (thread == 0) find_place<Full<L>>(a, find_entry(a, tile), tile, 0, 0, s.place);
    });
    each_thread([&](int thread) {
        const auto factor = T(a.penalty.strength);
        const Extent extent = s.place.extent;
        LaneSums<L> sums;
        for (int i = thread % kGroup; i < units; i += kGroup) {
            const int at = (thread / kGroup * units + i) * n;
            if (at + n <= extent.begin || at >= extent.end) continue;
            const bool vector = extent.has_vector(at, n);
            Unit<T, n> w, w0, out;
            vector ? w.load(s.place.w, at) : w.load(s.place.w, at, extent);
            vector ? w0.load(s.place.w0, at) : w0.load(s.place.w0, at, extent);
            for (int j = 0; j < n; ++j) {
                const T d = w.x[j] - w0.x[j];
                out.x[j] = factor * d;
                sums.add(dd, j, d, d);
            }
            if (s.place.momentum)
                vector ? out.store(s.place.momentum, at) : out.store(s.place.momentum, at, extent);
        }
        s.sums.leave(sums, thread);
    });
    s.sums.add_up(s.place, a.workspace, [&](int q, auto sum_of) {
        if (q == dd) a.workspace.heat[s.place.piece].kinetic = sum_of(q);
        publish();
    });
    each_thread([&](int thread) {
        if (thread == 0) s.done = arrive(a.workspace.all, a.n_ctas);
    });
    if (!s.done) return;
    each_thread([&](int thread) {
        if (thread != 0) return;
        publish();
        const double squares = add_in_order(
            a.n_segments, [&](std::int64_t i) { return fetch(&a.workspace.heat[i].kinetic); });
        *a.penalty.result = 0.5 * a.penalty.strength * squares;
    });
}

}  // namespace fastllc::cuda
