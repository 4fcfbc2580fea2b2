// The tree of sums (../moments.h) from the lanes of threads up to pieces. Its shape depends on
// sizes alone: whoever comes last adds up, in index order, what all have left.
#pragma once

#include "update.h"
#include "visits.h"

namespace fastllc::cuda {

// Whether this is the last of so many; the counter then starts anew.
FASTLLC_INLINE bool arrive(std::uint32_t* counter, std::int64_t expected) {
    if (count(counter) + 1 != std::uint32_t(expected)) return false;
    *counter = 0;
    return true;
}

// load(0) + load(1) + ... of n. Loads of what other CTAs have left take a microsecond: many at
// once.
template <class Load>
FASTLLC_INLINE double add_in_order(std::int64_t n, Load load) {
    constexpr int together = 16;
    double total = 0;
    for (std::int64_t i = 0; i < n; i += together) {
        double x[together];
        for (int j = 0; j < together; ++j) x[j] = i + j < n ? load(i + j) : 0;
        for (const double own : x) total += own;
    }
    return total;
}

FASTLLC_INLINE double add_rows(const double* sums, std::int64_t row, std::int64_t n, int quantity) {
    return add_in_order(
        n, [&](std::int64_t i) { return fetch(sums + (row + i) * kRowOfSums + quantity); });
}

template <class L>
struct Sums {
    using T = typename L::Scalar;

    // Rows are padded, so that quantities lie in different banks.
    alignas(16) T of_threads[kQuantities][kThreads + 4];
    bool span_done, piece_done;

    FASTLLC_INLINE void leave(const LaneSums<L>& sums, int thread) {
        for (int q = 0; q < kQuantities; ++q) of_threads[q][thread] = L::add_lanes(sums.lanes[q]);
    }

    FASTLLC_INLINE double of_chunk(int quantity) const {
        const T* const row = of_threads[quantity];
        double total = 0;
        for (int i = 0; i < kThreads; i += kGroup)
            total += double((row[i] + row[i + 1]) + (row[i + 2] + row[i + 3]));
        return total;
    }

    // Calls total(quantity, sum_of) once all chunks of the piece are there, in a thread for each
    // quantity; sum_of tells the piece's sum of any.
    template <class Total>
    FASTLLC_INLINE void add_up(const Place& place, const Workspace& workspace, Total total) {
        each_thread([&](int q) {
            if (q >= kQuantities) return;
            workspace.sums_of_chunk[place.chunk * kRowOfSums + q] = of_chunk(q);
            publish();
        });
        each_thread([&](int thread) {
            if (thread == 0) span_done = arrive(workspace.spans + place.span, place.span_chunks);
        });
        if (!span_done) return;
        each_thread([&](int q) {
            if (q >= kQuantities) return;
            publish();
            workspace.sums_of_span[place.span * kRowOfSums + q] =
                add_rows(workspace.sums_of_chunk, place.first_chunk, place.span_chunks, q);
            publish();
        });
        each_thread([&](int thread) {
            if (thread == 0) piece_done = arrive(workspace.pieces + place.piece, place.piece_spans);
        });
        if (!piece_done) return;
        each_thread([&](int q) {
            if (q >= kQuantities) return;
            publish();
            total(q, [&](int quantity) {
                return add_rows(workspace.sums_of_span, place.first_span, place.piece_spans,
                                quantity);
            });
        });
    }
};

}  // namespace fastllc::cuda
