// What a CTA is to do: one tile of one segment of one chain. Found by one thread for all.
#pragma once

#include "../rules.h"
#include "formats.h"

namespace fastllc::cuda {

FASTLLC_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
FASTLLC_INLINE std::int64_t most(std::int64_t a, std::int64_t b) { return a < b ? b : a; }

// Where a tile lies: its elements, its arrays by the address of its element 0 (or 0), and where its
// sums go if it is a chunk.
struct Place {
    Extent extent;
    std::int64_t first;  // element of the whole tensor
    std::uint64_t w, grad, w0, mask, momentum, square_avg, residual;
    std::int64_t piece, chunk, first_chunk, span_chunks, span, first_span, piece_spans;
};

// The entry whose tiles have this one among them.
FASTLLC_INLINE const Entry& find_entry(const Arguments& a, std::int64_t tile) {
    const Entry* const table = a.table ? a.table : a.entries;
    std::int64_t low = 0, high = a.n_entries;
    while (high - low > 1) {
        const std::int64_t middle = (low + high) / 2;
        (table[middle].tiles <= tile ? low : high) = middle;
    }
    return table[low];
}

// The address of an element, null staying null.
FASTLLC_INLINE std::uint64_t at(std::uint64_t base, std::int64_t element, std::size_t size) {
    return base ? base + std::uint64_t(element) * size : 0;
}

template <class P>
FASTLLC_INLINE void find_place(const Arguments& a, const Entry& entry, std::int64_t tile,
                               std::int64_t chain, std::int64_t anchor, Place& place) {
    using Stored = typename P::Stored;
    const Segment& s = entry.segment;
    const std::int64_t local = tile - entry.tiles, first = (s.first / a.tile + local) * a.tile;
    place.first = first;
    place.extent = {int(most(s.first - first, 0)), int(least(s.first + s.numel - first, a.tile)),
                    entry.aligned != 0};
    const std::int64_t offset = first - s.first, own = chain * s.w_stride + offset;
    place.w = at(s.w, own, sizeof(Stored));
    place.grad = at(s.grad, own, sizeof(Stored));
    place.w0 = at(s.w0, anchor * s.w0_stride + offset, sizeof(Stored));
    place.mask = at(s.mask, chain * s.mask_stride + offset, 1);
    place.momentum = at(s.momentum, own, sizeof(typename P::Real));
    place.square_avg = at(s.square_avg, own, sizeof(typename P::Real));
    place.residual = at(s.residual, own, sizeof(typename P::Residual));

    constexpr std::int64_t chunks = kSpan / kChunk;  // of a span
    const std::int64_t begin = s.first / kChunk, here = begin + local;
    const std::int64_t end = (s.first + s.numel + kChunk - 1) / kChunk;
    const std::int64_t from = most(here / chunks * chunks, begin);
    const std::int64_t row = chain * a.n_chunks + entry.chunks - begin;
    place.piece = chain * a.n_segments + entry.index;
    place.chunk = row + here;
    place.first_chunk = row + from;
    place.span_chunks = least((here / chunks + 1) * chunks, end) - from;
    place.first_span = chain * a.n_spans + entry.spans;
    place.span = place.first_span + here / chunks - begin / chunks;
    place.piece_spans = (end - 1) / chunks - begin / chunks + 1;
}

template <class T, class R>
struct Task : Place {
    static constexpr unsigned kPerCounter = 16 / sizeof(T);
    R rule;
    T box, start;  // the size of the bounding box; the mean square before the first step
    bool active, walled, fresh, at_random, decaying;
    std::uint64_t key;
    std::uint32_t step, param;
    std::uint64_t counter;  // of the noise, of the tile's first unit
    double lr;

    // Kept from unit to unit, the round keys would take 20 registers.
    FASTLLC_INLINE noise::RoundKeys<std::uint64_t> keys() const {
        return noise::RoundKeys<std::uint64_t>(afresh(key));
    }
    FASTLLC_INLINE std::uint64_t high(noise::Stream stream) const {
        return noise::address(step, stream, param);
    }
    FASTLLC_INLINE std::uint64_t counter_of(int element) const {
        return counter + std::uint64_t(std::uint32_t(element) / kPerCounter);
    }
};

template <class P, class R, class T = typename P::Real>
FASTLLC_INLINE void find_task(const Arguments& a, std::int64_t tile, std::int64_t chain,
                              Task<T, R>& task) {
    const Entry& entry = find_entry(a, tile);
    const Segment& s = entry.segment;
    const Chain& c = a.chains[chain];
    const Setting& setting = a.settings[s.group * a.n_chains + chain];
    const Walker walker{c.step - s.born, c.thermostat};
    find_place<P>(a, entry, tile, chain, c.anchor, task);
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
    task.counter = std::uint64_t(task.first / P::Lanes::kPerCounter);
}

}  // namespace fastllc::cuda
