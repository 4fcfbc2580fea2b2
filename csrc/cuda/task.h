// What a CTA is to do: one tile of one segment of one chain. Found by one thread for all.
#pragma once

#include "../rules.h"
#include "formats.h"

namespace fastllc::cuda {

template <class T, class R>
struct Task {
    static constexpr unsigned kPerCounter = 16 / sizeof(T);
    R rule;
    T box, start;  // the size of the bounding box; the mean square before the first step
    bool active, walled, fresh, at_random, decaying;
    Extent extent;
    std::uint64_t key;
    std::uint32_t step, param;
    std::uint64_t counter;  // of the noise, of the tile's first unit
    // By the address of the tile's element 0; or 0.
    std::uint64_t w, grad, w0, mask, momentum, square_avg, residual;
    std::int64_t chain, piece, chunk, first_chunk, span_chunks, span, first_span, piece_spans;
    double lr;

    // Kept from unit to unit, the round keys would take 20 registers.
    FASTLLC_INLINE noise::RoundKeys<std::uint64_t> keys() const {
        return noise::RoundKeys<std::uint64_t>(afresh(key));
    }
    FASTLLC_INLINE std::uint64_t high(noise::Stream stream) const {
        return noise::address(step, stream, param);
    }
    FASTLLC_INLINE std::uint64_t counter_of(int at) const {
        return counter + std::uint64_t(std::uint32_t(at) / kPerCounter);
    }
};

FASTLLC_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
FASTLLC_INLINE std::int64_t most(std::int64_t a, std::int64_t b) { return a < b ? b : a; }

// The entry whose tiles have this one among them.
FASTLLC_INLINE const Entry& find(const Arguments& a, std::int64_t tile) {
    const Entry* const table = a.table ? a.table : a.entries;
    std::int64_t low = 0, high = a.n_entries;
    while (high - low > 1) {
        const std::int64_t middle = (low + high) / 2;
        (table[middle].tiles <= tile ? low : high) = middle;
    }
    return table[low];
}

template <class P, class R, class T = typename P::Real>
FASTLLC_INLINE void find_task(const Arguments& a, std::int64_t tile, std::int64_t chain,
                              Task<T, R>& task) {
    const Entry& entry = find(a, tile);
    const Segment& s = entry.segment;
    const Chain& c = a.chains[chain];
    const Setting& setting = a.settings[s.group * a.n_chains + chain];
    const Walker walker{c.step - s.born, c.thermostat};
    task.active = c.active != 0 && s.numel > 0;
    task.rule = R(a.rule, setting, walker);
    task.box = T(setting.bounding_box);
    task.start = T(setting.start);
    task.walled = s.w0 && task.box - task.box == 0;  // finite
    task.fresh = walker.age == 0;
    task.at_random = P::kLow && !s.residual;
    task.decaying = setting.weight_decay != 0 || a.sketches.tables;
    task.lr = setting.lr;
    task.key = c.key;
    task.step = std::uint32_t(c.step);
    task.param = std::uint32_t(s.param);

    const std::int64_t local = tile - entry.tiles, first = (s.first / a.tile + local) * a.tile;
    task.extent = {int(most(s.first - first, 0)), int(least(s.first + s.numel - first, a.tile)),
                   entry.aligned != 0};
    task.counter = std::uint64_t(first / P::Lanes::kPerCounter);
    const std::int64_t own = chain * s.w_stride + first - s.first;
    const auto at = [](std::uint64_t base, std::int64_t elements, std::size_t size) {
        return base ? base + std::uint64_t(elements) * size : 0;
    };
    task.w = at(s.w, own, sizeof(typename P::Stored));
    task.grad = at(s.grad, own, sizeof(typename P::Stored));
    task.w0 = at(s.w0, c.anchor * s.w0_stride + first - s.first, sizeof(typename P::Stored));
    task.mask = at(s.mask, chain * s.mask_stride + first - s.first, 1);
    task.momentum = at(s.momentum, own, sizeof(T));
    task.square_avg = at(s.square_avg, own, sizeof(T));
    task.residual = at(s.residual, own, sizeof(typename P::Residual));

    task.chain = chain;
    task.piece = chain * a.n_segments + entry.index;
    // Where tiles are chunks:
    constexpr std::int64_t chunks = kSpan / kChunk;
    const std::int64_t begin = s.first / kChunk, at_chunk = begin + local;
    const std::int64_t end = (s.first + s.numel + kChunk - 1) / kChunk;
    const std::int64_t from = at_chunk / chunks * chunks;
    const std::int64_t row = chain * a.n_chunks + entry.chunks - begin;
    task.chunk = row + at_chunk;
    task.first_chunk = row + most(from, begin);
    task.span_chunks = least(from + chunks, end) - most(from, begin);
    task.first_span = chain * a.n_spans + entry.spans;
    task.span = task.first_span + at_chunk / chunks - begin / chunks;
    task.piece_spans = (end - 1) / chunks - begin / chunks + 1;
}

}  // namespace fastllc::cuda
