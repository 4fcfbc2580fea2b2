// What a thread does with one unit of its tile: load, update, store, and the sums of its lanes.
#pragma once

#include "task.h"

namespace fastllc::cuda {

// The sums of one thread: those of its lanes, of which a group of 4 threads has 64 bytes
// (moments.h). Quantities that a rule does not sum cost nothing: their lanes stay constants.
template <class L>
struct LaneSums {
    using T = typename L::Scalar;
    T lanes[kQuantities][L::kPerCounter] = {};

    FASTLLC_INLINE void add(int quantity, int lane, T x, T y) {
        T& sum = lanes[quantity][lane];
        sum = L::fma(x, y, sum);
    }
};

template <class P>
struct Inputs {
    static constexpr int n = P::Lanes::kPerCounter;
    Unit<typename P::Stored, n> w, grad, w0;
    Unit<typename P::Real, n> momentum, square_avg;
    Unit<typename P::Residual, n> residual;
    std::uint32_t on;  // a byte an element
    bool vector;

    // Nothing is read of a unit in which nothing is on.
    template <class Task>
    FASTLLC_INLINE void read(const Task& task, int at) {
        const Extent& extent = task.extent;
        vector = extent.has_vector(at, n);
        on = task.mask ? load_mask<n>(task.mask, at, extent) : extent.among(at, n);
        if (on) vector ? load(task, at) : load(task, at, extent);
    }

    FASTLLC_INLINE bool has(int i) const { return on >> 8 * i & 0xffu; }

    template <class Task, class... Extents>
    FASTLLC_INLINE void load(const Task& task, int at, const Extents&... extent) {
        using R = decltype(task.rule);
        w.load(task.w, at, extent...);
        grad.load(task.grad, at, extent...);
        w0 = {};
        if (task.w0) w0.load(task.w0, at, extent...);
        if (R::kHasMomentum && !task.fresh) momentum.load(task.momentum, at, extent...);
        if (R::kHasSquareAvg && !task.fresh) square_avg.load(task.square_avg, at, extent...);
        if (P::kLow && !task.at_random) residual.load(task.residual, at, extent...);
    }
};

// The normals of a unit, and its state where that is born in this step.
template <class P, class Task>
FASTLLC_INLINE void draw(const Task& task, int at, Inputs<P>& in,
                         typename P::Real (&z)[P::Lanes::kPerCounter]) {
    using L = typename P::Lanes;
    using T = typename P::Real;
    using R = decltype(task.rule);
    constexpr int n = L::kPerCounter;
    const R& rule = task.rule;
    const auto normals = [&](noise::Stream stream) {
        scalar::normals<L>(task.keys(), task.high(stream), task.counter_of(at), z);
    };
    if constexpr (R::kThermostat) {  // the rules whose momenta are drawn
        // As a loop there is but one copy of the noise's code.
        for (int turn = task.fresh && rule.spread != 0 ? 0 : 1; turn < 2; ++turn) {
            if (turn == 1 && task.fresh)
                for (int i = 0; i < n; ++i)
                    in.momentum.x[i] = rule.spread != 0 ? rule.spread * z[i] : T(0);
            if (turn == 0 || rule.noise != 0)
                normals(turn == 0 ? noise::Stream::momentum : noise::Stream::proposal);
            else
                for (T& x : z) x = 0;
        }
    } else {
        for (T& x : z) x = 0;
        if (rule.noise != 0) normals(noise::Stream::proposal);
        if (R::kHasMomentum && task.fresh) in.momentum = {};
    }
    if (R::kHasSquareAvg && task.fresh)
        for (T& x : in.square_avg.x) x = task.start;
}

// What a step makes of one element.
template <class T>
struct Move {
    T w, g, d, next, m, v;
    Parts<T> part;
};

template <class P, class Task, class T = typename P::Real>
FASTLLC_INLINE Move<T> move(const Task& task, const Inputs<P>& in, int i, T z) {
    using R = decltype(task.rule);
    Move<T> x{};
    x.w = P::load(in.w.x[i]);
    if constexpr (P::kLow)
        if (!task.at_random) x.w = P::load(in.w.x[i], in.residual.x[i]);
    x.g = P::load(in.grad.x[i]);
    T w0 = 0;
    if (task.w0) {
        w0 = P::load(in.w0.x[i]);
        x.d = x.w - w0;
    }
    if constexpr (R::kHasMomentum) x.m = in.momentum.x[i];
    if constexpr (R::kHasSquareAvg) x.v = in.square_avg.x[i];
    x.next = next_inside<typename P::Lanes>(task.rule, task.walled, task.box, x.w, x.g, w0, x.d, z,
                                            x.m, x.v, x.part);
    return x;
}

// Updates a unit in place and returns how many of its weights are not finite then.
template <class P, bool kSums, class Task>
FASTLLC_INLINE int update(const Task& task, int at, Inputs<P>& in,
                          LaneSums<typename P::Lanes>& sums) {
    using L = typename P::Lanes;
    using T = typename P::Real;
    using R = decltype(task.rule);
    constexpr int n = L::kPerCounter;
    T z[n];
    draw<P>(task, at, in, z);
    std::uint32_t bits[4] = {};
    if constexpr (P::kLow)
        if (task.at_random)
            scalar::words<scalar::Single>(task.keys(), task.high(noise::Stream::rounding),
                                          task.counter_of(at), bits);
    T stored[n];
    for (int i = 0; i < n; ++i) {
        const Move<T> x = move<P>(task, in, i, z[i]);
        stored[i] = 0;
        if (!in.has(i)) continue;
        if constexpr (R::kHasMomentum) in.momentum.x[i] = x.m;
        if constexpr (R::kHasSquareAvg) in.square_avg.x[i] = x.v;
        if constexpr (P::kLow)
            stored[i] = task.at_random ? P::store_at_random(x.next, bits[i], in.w.x[i])
                                       : P::store(x.next, in.w.x[i], in.residual.x[i]);
        else
            stored[i] = in.w.x[i] = x.next;
        if constexpr (kSums) {
            const auto add = [&](int q, T a, T b) { sums.add(q, i, a, b); };
            add_products<R>(x.part, x.w, x.g, x.d, add);
            if (task.decaying) add_products_of_decay<R>(x.part, add);
            if constexpr (R::kThermostat) {
                sums.add(kKinetic, i, x.m, x.m);
                sums.lanes[kUpdated][i] += 1;
            }
        }
    }

    const auto store = [&](const auto&... extent) {
        in.w.store(task.w, at, extent...);
        if (R::kHasMomentum) in.momentum.store(task.momentum, at, extent...);
        if constexpr (R::kHasSquareAvg)
            if (task.rule.adapting || task.fresh)
                in.square_avg.store(task.square_avg, at, extent...);
        if (P::kLow && !task.at_random) in.residual.store(task.residual, at, extent...);
    };
    in.vector ? store() : store(task.extent);

    // A sum is finite only if all its terms are, and they are seldom not.
    const T total = L::add_lanes(stored);
    int nonfinite = 0;
    if (!(total - total == 0))
        for (int i = 0; i < n; ++i) nonfinite += !(stored[i] - stored[i] == 0);
    return nonfinite;
}

}  // namespace fastllc::cuda
