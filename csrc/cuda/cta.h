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

// The units next(i) of a thread, for i from `from` by `by` below `to`. Sums leave registers for few
// threads: to have enough loads on their way, those of the next unit start before one is updated.
// (Rules with mean squares load more, and their sums leave no registers for it.)
template <class P, bool kSums, class Task, class Next>
FASTLLC_INLINE void visit(const Task& task, const Workspace& workspace, int from, int to, int by,
                          LaneSums<typename P::Lanes>& sums, Next next) {
    constexpr int n = P::Lanes::kPerCounter;
    int nonfinite = 0;
    if constexpr (kSums && !decltype(task.rule)::kHasSquareAvg) {
        Inputs<P> ahead;
        if (from < to) ahead.read(task, next(from) * n);
        for (int i = from; i < to; i += by) {
            Inputs<P> in = ahead;
            if (i + by < to) ahead.read(task, next(i + by) * n);
            if (in.on) nonfinite += update<P, kSums>(task, next(i) * n, in, sums);
        }
    } else {
        for (int i = from; i < to; i += by) {
            Inputs<P> in;
            in.read(task, next(i) * n);
            if (in.on) nonfinite += update<P, kSums>(task, next(i) * n, in, sums);
        }
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
    constexpr int together = 8;
    double energy = 0, lr = 0, n = 0;
    for (std::int64_t i = 0; i < n_segments; i += together) {
        Heat own[together] = {};
        for (int j = 0; j < together && i + j < n_segments; ++j)
            own[j] = {fetch(&heat[i + j].kinetic), fetch(&heat[i + j].updated),
                      fetch(&heat[i + j].lr)};
        for (const Heat& x : own) {
            if (x.lr == 0) continue;
            energy += x.kinetic / x.lr;
            lr += x.lr * x.updated;
            n += x.updated;
        }
    }
    return n == 0 ? 0 : lr / n * (energy / n - 1);
}

// What the last CTA of a step does: chains move on, those that are lost stop.
template <bool kThermostat, class Shared>
FASTLLC_INLINE void finish(const Arguments& a, Shared& s) {
    const Workspace& workspace = a.workspace;
    each_thread([&](int thread) {
        publish();
        if (thread == 0) s.any = fetch(workspace.any);
        for (std::int64_t k = thread; k < a.n_chains; k += kThreads) {
            Chain& chain = a.chains[k];
            if (chain.active == 0) continue;
            if (kThermostat && a.rule == Rule::sgnht)
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
            s.sums.add_up(s.task, workspace, [&](int q, auto sum_of) {
                Heat& heat = workspace.heat[s.task.piece];
                if (q < kMoments && a.moments)
                    a.moments[s.task.piece * kMoments + q] = sum_of(same_moment<R>(q));
                if (q == kKinetic) heat.kinetic = sum_of(q);
                if (q == kUpdated) heat.updated = sum_of(q), heat.lr = s.task.lr;
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
    if (s.step_done) finish<kSums && R::kThermostat>(a, s);
}

}  // namespace fastllc::cuda
