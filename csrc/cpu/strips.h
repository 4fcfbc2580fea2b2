// Who adds to which tables where a step is sketched: the chunks of a chain are dealt into strips,
// neighbours together, and one thread takes all of a strip in turn into tables of its own. Where
// strips end depends on sizes alone, and their tables are added in index order, in double: the
// result is the same for any number of threads.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels.h"

namespace fastllc::cpu {

// Part of a piece of a tensor: `numel` elements from element `first` of the whole tensor, which is
// element `offset` of the piece.
struct Chunk {
    std::int64_t piece, offset, first, numel;
};

class Strips {
public:
    Strips(const Step& step, const std::vector<Chunk>& chunks)
        : step_(step), to_(step.sketches), stride_(apart((to_.dim + 2 * kRow - 2) / kRow * kRow)),
          cells_(kComponents * stride_) {
        to_.tables ? deal(chunks) : leave(chunks.size());
    }

    std::int64_t size() const { return static_cast<std::int64_t>(strips_.size()); }

    // Calls visit(index of chunk, tables) for the chunks of one strip.
    template <class Visit>
    void run(std::int64_t index, Visit visit) const {
        const Strip& strip = strips_[static_cast<std::size_t>(index)];
        const Sketching sketch{to_.seed, to_.dim, stride_, to_.tables ? tables(index) : nullptr};
        if (sketch.tables)
            std::memset(sketch.tables, 0, static_cast<std::size_t>(cells_) * (strip.wide ? 8 : 4));
        for (std::size_t i = strip.begin; i < strip.end; ++i) visit(i, sketch);
    }

    // Adds the tables of the strips to those of their chains.
    void add_up() const {
        if (!to_.tables) return;
        std::fill_n(to_.tables, step_.n_chains * kComponents * to_.dim, 0.0);
        for (std::int64_t i = 0; i < size(); ++i)
            strips_[static_cast<std::size_t>(i)].wide ? add(i, static_cast<double*>(tables(i)))
                                                      : add(i, static_cast<float*>(tables(i)));
    }

private:
    struct Strip {
        std::size_t begin, end;
        std::int64_t chain;
        bool wide;  // double precision
    };

    // The next length at which the tables of one row's components lie at places of their own in a
    // page. Processors look for the stores that a load must wait for by the low 12 bits of the
    // address: with tables of 65 lines, just over a page, a Zen 4 takes twice as long.
    static std::int64_t apart(std::int64_t length) {
        constexpr std::int64_t page = 1024, offset = 13 * kRow;
        return (length - offset + page - 1) / page * page + offset;
    }

    // Without sketches every chunk is a strip.
    void leave(std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) strips_.push_back({i, i + 1, 0, false});
    }

    // At most 64 strips for a chain; their tables take 4 MiB at most (in single precision 2), but
    // for those of 4 strips.
    void deal(const std::vector<Chunk>& chunks) {
        const auto most = static_cast<std::size_t>(
            std::clamp<std::int64_t>((std::int64_t{1} << 19) / cells_, 4, 64));
        const auto chain_of = [&](std::size_t i) { return chunks[i].piece / step_.n_segments; };
        for (std::size_t i = 0, longest = 0; i < chunks.size(); ++i) {
            const Segment& segment = step_.segments[chunks[i].piece % step_.n_segments];
            const Strip strip{i, i + 1, chain_of(i), segment.dtype == DType::float64};
            if (i == 0 || strip.chain != strips_.back().chain) {
                std::size_t end = i;
                while (end < chunks.size() && chain_of(end) == strip.chain) ++end;
                longest = (end - i + most - 1) / most;
            } else if (Strip& last = strips_.back();
                       last.wide == strip.wide && last.end - last.begin < longest) {
                ++last.end;
                continue;
            }
            strips_.push_back(strip);
        }
        // As memory comes: each thread clears the tables that it takes.
        memory_.reset(new double[strips_.size() * static_cast<std::size_t>(cells_)]);
    }

    void* tables(std::int64_t index) const { return memory_.get() + index * cells_; }

    // Buckets past the end are the first ones.
    template <class T>
    void add(std::int64_t index, const T* tables) const {
        const std::int64_t dim = to_.dim, used = dim + kRow - 1;
        const bool preconditioned = step_.rule == Rule::rmsprop || step_.rule == Rule::adam;
        double* out =
            to_.tables + strips_[static_cast<std::size_t>(index)].chain * kComponents * dim;
        for (int q = 0; q < kComponents; ++q, out += dim) {
            const bool same = q == kUnscaledGrad && !preconditioned;
            const T* const table = tables + (same ? int(kScaledGrad) : q) * stride_;
            for (std::int64_t from = 0; from < used; from += dim)
                for (std::int64_t i = from; i < std::min(from + dim, used); ++i)
                    out[i - from] += static_cast<double>(table[i]);
        }
    }

    const Step& step_;
    const Sketches& to_;
    std::int64_t stride_, cells_;
    std::vector<Strip> strips_;
    std::unique_ptr<double[]> memory_;
};

}  // namespace fastllc::cpu
