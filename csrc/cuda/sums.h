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

// Of n rows, in index order.
FASTLLC_INLINE double add_rows(const double* sums, std::int64_t row, std::int64_t n, int quantity) {
    double total = 0;
    for (std::int64_t i = 0; i < n; ++i) total += fetch(sums + (row + i) * kRowOfSums + quantity);
    return total;
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

    // Calls total(quantity, sum) for the sums of a piece, in a thread for each quantity, once all
    // of its chunks are there.
    template <class Task, class Total>
    FASTLLC_INLINE void add_up(const Task& task, const Workspace& workspace, Total total) {
        each_thread([&](int q) {
            if (q >= kQuantities) return;
            workspace.sums_of_chunk[task.chunk * kRowOfSums + q] = of_chunk(q);
            publish();
        });
        each_thread([&](int thread) {
            if (thread == 0) span_done = arrive(workspace.spans + task.span, task.span_chunks);
        });
        if (!span_done) return;
        each_thread([&](int q) {
            if (q >= kQuantities) return;
            publish();
            workspace.sums_of_span[task.span * kRowOfSums + q] =
                add_rows(workspace.sums_of_chunk, task.first_chunk, task.span_chunks, q);
            publish();
        });
        each_thread([&](int thread) {
            if (thread == 0) piece_done = arrive(workspace.pieces + task.piece, task.piece_spans);
        });
        if (!piece_done) return;
        each_thread([&](int q) {
            if (q >= kQuantities) return;
            publish();
            const int same = q < kMoments ? same_moment<decltype(task.rule)>(q) : q;
            total(q, add_rows(workspace.sums_of_span, task.first_span, task.piece_spans, same));
        });
    }
};

}  // namespace fastllc::cuda
