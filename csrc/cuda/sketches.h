// Count sketches (../sketch.h) of the step that is about to be taken. A CTA takes one strip of
// chunks in turn into tables of its own, always in the same order, and tables are added in index
// order: the same bits every time, without an atomic operation. (Not those of the CPU, whose strips
// and precisions are others.)
#pragma once

#include "update.h"

namespace fastllc::cuda {

template <class P, class R>
struct SketchShared {
    using T = typename P::Real;
    static constexpr int kElements = kThreads * P::Lanes::kPerCounter;  // at once
    static constexpr int kRows = kElements / int(kRow);

    Task<T, R> task;
    // Components with their coefficients, each in banks of its own.
    T components[kComponents][kElements + kRow];
    std::uint32_t start[kRows], signs[kRows];

    // The hash of one counter, that is of 4 rows.
    FASTLLC_INLINE void hash(const Sketches& sketches, int from, int i) {
        const noise::RoundKeys<std::uint64_t> keys(sketches.seed);
        const auto counter = std::uint64_t((task.first + from) / kHashed + i);
        std::uint32_t word[4];
        scalar::words<scalar::Single>(keys, noise::address(0, noise::Stream::sketch, task.param),
                                      counter, word);
        for (int row = 0; row < 4; ++row) {
            const std::uint32_t h = word[2 + row / 2] >> 16 * (row % 2) & 0xffffu;
            signs[4 * i + row] = word[row / 2] >> 16 * (row % 2) & 0xffffu;
            start[4 * i + row] = std::uint32_t(h * std::uint64_t(sketches.dim) >> 16);
        }
    }

    FASTLLC_INLINE void take(int at, int thread) {
        constexpr int n = P::Lanes::kPerCounter;
        Inputs<P> in;
        T z[n] = {};
        in.read(task, at);
        if (in.on) draw<P>(task, at, in, z);
        for (int i = 0; i < n; ++i) {
            const bool on = in.has(i);
            const Move<T> x = on ? move<P>(task, in, i, z[i]) : Move<T>{};
            const auto put = [&](int q, T coefficient, T value) {
                components[q][thread * n + i] = on && coefficient != 0 ? coefficient * value : T(0);
            };
            put(kScaledGrad, task.rule.drift.grad, x.part.a);
            put(kUnscaledGrad, task.rule.drift.grad, x.g);
            put(kLocalization, task.rule.drift.localization, x.part.p);
            put(kWeightDecay, task.rule.drift.weight_decay, x.part.c);
            put(kNoise, task.rule.noise, x.part.n);
        }
    }

    // One component, by 16 threads: each has every 16th bucket, of which every row meets one.
    template <class Cell>
    FASTLLC_INLINE void add(Cell* table, int q, int residue) const {
        for (int row = 0; row < kRows; ++row) {
            const int lane = int((unsigned(residue) - start[row]) % unsigned(kRow));
            const T x = components[q][row * int(kRow) + lane];
            table[start[row] + unsigned(lane)] += Cell(signs[row] >> lane & 1u ? -x : x);
        }
    }
};

// Whether tables have room in shared memory, without asking for more than every kernel may have.
template <class P, class R>
constexpr bool fits(std::int64_t dim) {
    return std::int64_t(sizeof(SketchShared<P, R>)) +
               kComponents * (dim + kRow - 1) * std::int64_t(sizeof(typename P::Real)) <=
           48 * 1024;
}

// A strip, into tables of cells that begin as zero.
template <class P, class R, class Cell>
FASTLLC_INLINE void sketch_strip(const Arguments& a, std::int64_t strip, std::int64_t chain,
                                 std::int64_t tiles, SketchShared<P, R>& s, Cell* tables) {
    constexpr int elements = SketchShared<P, R>::kElements, n = P::Lanes::kPerCounter;
    const std::int64_t stride = a.sketches.dim + kRow - 1;
    const std::int64_t end = (strip + 1) * tiles / a.strips.n;
    for (std::int64_t tile = strip * tiles / a.strips.n; tile < end; ++tile) {
        each_thread([&](int thread) {
            if (thread == 0) find_task<P>(a, tile, chain, s.task);
        });
        const Extent extent = s.task.extent;
        for (int from = extent.begin / elements * elements; from < extent.end; from += elements) {
            each_thread([&](int thread) {
                s.take(from + thread * n, thread);
                if (thread < elements / int(kHashed)) s.hash(a.sketches, from, thread);
            });
            each_thread([&](int thread) {
                const int q = thread / int(kRow);
                if (q < kComponents) s.add(tables + q * stride, q, thread % int(kRow));
            });
        }
    }
}

// The tables are summed in shared memory where there is room for them, else in place.
template <class P, class R, class T = typename P::Real>
FASTLLC_INLINE void sketch_cta(const Arguments& a, std::int64_t strip, std::int64_t row,
                               std::int64_t tiles, SketchShared<P, R>& s, T* shared_tables) {
    const std::int64_t chain = a.first_chain + row;
    if (a.chains[chain].active == 0) return;
    const std::int64_t cells = kComponents * (a.sketches.dim + kRow - 1);
    double* const own = a.strips.tables + (chain * a.strips.all + a.strips.first + strip) * cells;
    each_thread([&](int thread) {
        for (std::int64_t i = thread; i < cells; i += kThreads)
            if (shared_tables)
                shared_tables[i] = 0;
            else
                own[i] = 0;
    });
    if (!shared_tables) return sketch_strip<P, R>(a, strip, chain, tiles, s, own);
    sketch_strip<P, R>(a, strip, chain, tiles, s, shared_tables);
    each_thread([&](int thread) {
        for (std::int64_t i = thread; i < cells; i += kThreads) own[i] = double(shared_tables[i]);
    });
}

// One bucket of a chain's sketches, from the tables of all strips; those past the end are the
// first.
FASTLLC_INLINE void add_strips(const Arguments& a, std::int64_t bucket, std::int64_t chain) {
    const std::int64_t dim = a.sketches.dim, stride = dim + kRow - 1;
    if (bucket >= kComponents * dim || a.chains[chain].active == 0) return;
    const std::int64_t q = bucket / dim;
    const double* table =
        a.strips.tables + chain * a.strips.all * kComponents * stride + q * stride;
    double total = 0;
    for (std::int64_t strip = 0; strip < a.strips.all; ++strip, table += kComponents * stride)
        for (std::int64_t i = bucket % dim; i < stride; i += dim) total += table[i];
    a.sketches.tables[chain * kComponents * dim + bucket] = total;
}

}  // namespace fastllc::cuda
