// A CTA's part of a step, the same text as kernel and as its emulation: each_thread ends at a
// barrier, and what it writes to shared memory is read only behind that.
#pragma once

#include <type_traits>

#include "sums.h"

namespace fastllc::cuda {

struct Nothing {};

template <class P, class R, bool kSums>
struct Shared {
    using L = typename P::Lanes;
    Task<typename P::Real, R> task;
    std::conditional_t<kSums, Visits<L>, Nothing> visits;
    std::conditional_t<kSums, Sums<L>, Nothing> sums;
    bool step_done;
    std::uint32_t any;
};

// The units of a thread, by `next(i)`, number from `from` by `by` below `to`. The loads of the next
// unit are on their way while this one is updated.
template <class P, bool kSums, class Task, class Next>
FASTLLC_INLINE void visit(const Task& shared, const Workspace& workspace, int from, int to, int by,
                          LaneSums<typename P::Lanes>& sums, Next next) {
    constexpr int n = P::Lanes::kPerCounter;
    const Task& task = shared;
    int nonfinite = 0;
    for (int i = from; i < to; i += by) {
        const int at = next(i) * n;
        Inputs<P> in(task, at);
        if (in.on) nonfinite += update<P, kSums>(task, at, in, sums);
    }
    if (nonfinite > 0) {
        add(workspace.nonfinite + task.piece, nonfinite);
        count(workspace.any);
        publish();
    }
}

// Ding et al. 2014: how much a chain's kinetic energy exceeds that of equilibrium, where momenta
// have variance lr, each group its own.
FASTLLC_INLINE double excess_heat(const Heat* heat, std::int64_t n_segments) {
    double energy = 0, lr = 0, n = 0;
    for (std::int64_t s = 0; s < n_segments; ++s) {
        const double kinetic = fetch(&heat[s].kinetic), updated = fetch(&heat[s].updated),
                     own = fetch(&heat[s].lr);
        if (own == 0) continue;
        energy += kinetic / own;
        lr += own * updated;
        n += updated;
    }
    return n == 0 ? 0 : lr / n * (energy / n - 1);
}

// What the last CTA of a step does: chains move on, those that are lost stop.
template <class Shared>
FASTLLC_INLINE void finish(const Arguments& a, Shared& s) {
    const Workspace& workspace = a.workspace;
    each_thread([&](int thread) {
        publish();
        if (thread == 0) s.any = fetch(workspace.any);
        for (std::int64_t k = thread; k < a.n_chains; k += kThreads) {
            Chain& chain = a.chains[k];
            if (chain.active == 0) continue;
            if (a.rule == Rule::sgnht)
                chain.thermostat += excess_heat(workspace.heat + k * a.n_segments, a.n_segments);
            ++chain.step;
        }
    });
    const std::int64_t n_pieces = a.n_chains * a.n_segments;
    each_thread([&](int thread) {
        if (thread == 0) *workspace.any = 0;
        for (std::int64_t piece = thread; piece < n_pieces; piece += kThreads) {
            if (a.chains[piece / a.n_segments].active == 0) continue;
            a.nonfinite[piece] = s.any == 0 ? 0 : fetch(workspace.nonfinite + piece);
            if (s.any != 0) workspace.nonfinite[piece] = 0;
        }
    });
    if (s.any == 0) return;
    each_thread([&](int thread) {
        for (std::int64_t piece = thread; piece < n_pieces; piece += kThreads) {
            Chain& chain = a.chains[piece / a.n_segments];
            if (chain.active == 1 && a.nonfinite[piece] > 0) chain.active = 0;
        }
    });
}

template <class P, class R, bool kSums>
FASTLLC_INLINE void step_cta(const Arguments& a, std::int64_t tile, std::int64_t row,
                             Shared<P, R, kSums>& s) {
    using L = typename P::Lanes;
    const Workspace& workspace = a.workspace;
    each_thread([&](int thread) {
        if (thread == 0) find_task<P>(a, tile, a.first_chain + row, s.task);
    });
    if (s.task.active) {
        if constexpr (kSums) {
            if (s.task.mask)
                s.visits.choose(s.task.mask, s.task.extent, !a.sketches.tables);
            else
                each_thread([&](int thread) { s.visits.all(thread); });
            each_thread([&](int thread) {
                const Visit v = s.visits.of[thread / kGroup];
                LaneSums<L> sums;
                visit<P, true>(s.task, workspace, thread % kGroup, v.count, kGroup, sums,
                               [&](int i) {
                                   return int(v.listed ? s.visits.units[v.start + i] : v.start + i);
                               });
                s.sums.leave(sums, thread);
            });
            s.sums.add_up(s.task, workspace, [&](int q, double sum) {
                if (q < kMoments && a.moments) a.moments[s.task.piece * kMoments + q] = sum;
                Heat& heat = workspace.heat[s.task.piece];
                if (q == kKinetic) heat.kinetic = sum;
                if (q == kUpdated) heat.updated = sum, heat.lr = s.task.lr;
                publish();
            });
        } else {
            each_thread([&](int thread) {
                constexpr int n = L::kPerCounter;
                LaneSums<L> sums;
                visit<P, false>(s.task, workspace, s.task.extent.begin / n + thread,
                                (s.task.extent.end + n - 1) / n, kThreads, sums,
                                [](int i) { return i; });
            });
        }
    }
    each_thread([&](int thread) {
        if (thread == 0) s.step_done = arrive(workspace.all, a.n_ctas);
    });
    if (s.step_done) finish(a, s);
}

}  // namespace fastllc::cuda
