// Cuts tensors into chunks, hands these to the threads and adds up what they return, in an order
// that depends on the sizes alone.
#include "../step.h"

#include <vector>

#include "dispatch.h"
#include "pool.h"

namespace fastllc {
namespace {

using cpu::Run;
using cpu::Sums;

// Part of a piece of a tensor: `numel` elements from element `first` of the whole tensor, which is
// element `offset` of the piece.
struct Chunk {
    std::int64_t piece, offset, first, numel;
};

// Below this a second thread costs more than it brings: it is awake after some 20 us, the time of
// about as many elements of a step.
constexpr std::int64_t kSerial = 32768;

// Visits all chunks of pieces 0..n-1 and calls total(piece, sums) once for each piece.
// extent(piece) gives its {first, numel}.
template <class Extent, class Visit, class Total>
void sweep(std::int64_t n, int threads, Extent extent, Visit visit, Total total) {
    std::vector<Chunk> chunks;
    std::int64_t elements = 0;
    for (std::int64_t piece = 0; piece < n; ++piece) {
        const auto [first, numel] = extent(piece);
        elements += numel;
        for (std::int64_t offset = 0; offset < numel;) {
            const std::int64_t room = kChunk - (first + offset) % kChunk;
            const std::int64_t count = room < numel - offset ? room : numel - offset;
            chunks.push_back({piece, offset, first + offset, count});
            offset += count;
        }
    }
    std::vector<Sums> sums(chunks.size());
    cpu::parallel_for(static_cast<std::int64_t>(chunks.size()), elements < kSerial ? 1 : threads,
                      [&](std::int64_t i) {
                          const auto at = static_cast<std::size_t>(i);
                          visit(chunks[at], sums[at]);
                      });
    std::size_t at = 0;
    for (std::int64_t piece = 0; piece < n; ++piece) {
        Sums all;
        for (; at < chunks.size() && chunks[at].piece == piece; ++at) {
            for (int m = 0; m < kMoments; ++m) all.moments[m] += sums[at].moments[m];
            all.nonfinite += sums[at].nonfinite;
        }
        total(piece, all);
    }
}

struct Extent {
    std::int64_t first, numel;
};

std::int64_t item_size(DType dtype) { return dtype == DType::float32 ? 4 : 8; }

// Address of an element, null staying null.
void* at(std::uint64_t base, std::int64_t bytes) {
    return base ? reinterpret_cast<void*>(base + static_cast<std::uint64_t>(bytes)) : nullptr;
}

}  // namespace

std::int64_t step(const Step& s) {
    std::int64_t nonfinite = 0;
    const cpu::Kernels& kernels = *cpu::isa().kernels;
    sweep(
        s.n_chains * s.n_segments, s.threads,
        [&](std::int64_t piece) {
            const Segment& segment = s.segments[piece % s.n_segments];
            const bool active = s.chains[piece / s.n_segments].active != 0;
            return Extent{segment.first, active ? segment.numel : 0};
        },
        [&](const Chunk& c, Sums& sums) {
            const std::int64_t k = c.piece / s.n_segments;
            const Segment& segment = s.segments[c.piece % s.n_segments];
            const Chain& chain = s.chains[k];
            const std::int64_t size = item_size(segment.dtype);
            const auto element = [&](std::int64_t stride) { return k * stride + c.offset; };
            void* w = at(segment.w, element(segment.w_stride) * size);
            const Run run{
                w,
                w,
                at(segment.grad, element(segment.grad_stride) * size),
                at(segment.w0, element(segment.w0_stride) * size),
                static_cast<std::uint8_t*>(at(segment.mask, element(segment.mask_stride))),
                c.first,
                c.numel};
            kernels.sgld(segment.dtype, run, s.settings[segment.group * s.n_chains + k],
                         noise::address(chain.key, static_cast<std::uint32_t>(chain.step),
                                        noise::Stream::proposal,
                                        static_cast<std::uint32_t>(segment.param)),
                         s.moments != nullptr, sums);
        },
        [&](std::int64_t piece, const Sums& sums) {
            s.nonfinite[piece] = sums.nonfinite;
            nonfinite += sums.nonfinite;
            if (s.moments)
                for (int m = 0; m < kMoments; ++m)
                    s.moments[piece * kMoments + m] = sums.moments[m];
        });
    return nonfinite;
}

void standard_normal(DType dtype, void* out, std::int64_t numel, std::int64_t first,
                     std::uint64_t key, std::uint32_t step, std::uint32_t param, int threads) {
    const cpu::Kernels& kernels = *cpu::isa().kernels;
    const std::int64_t size = item_size(dtype);
    const noise::Address address = noise::address(key, step, noise::Stream::proposal, param);
    sweep(
        1, threads, [&](std::int64_t) { return Extent{first, numel}; },
        [&](const Chunk& c, Sums&) {
            auto* piece = static_cast<unsigned char*>(out) + c.offset * size;
            kernels.normal(dtype, Run{piece, {}, {}, {}, {}, c.first, c.numel}, address);
        },
        [](std::int64_t, const Sums&) {});
}

double localization_penalty(DType dtype, const Pair* pairs, std::int64_t n, double strength,
                            int threads) {
    const cpu::Kernels& kernels = *cpu::isa().kernels;
    const std::int64_t size = item_size(dtype);
    double squares = 0;
    sweep(
        n, threads, [&](std::int64_t piece) { return Extent{0, pairs[piece].numel}; },
        [&](const Chunk& c, Sums& sums) {
            const Pair& pair = pairs[c.piece];
            const std::int64_t bytes = c.offset * size;
            const Run run{at(pair.out, bytes),
                          at(pair.w, bytes),
                          {},
                          at(pair.w0, bytes),
                          {},
                          c.first,
                          c.numel};
            kernels.penalty(dtype, run, strength, sums);
        },
        [&](std::int64_t, const Sums& sums) { squares += sums.moments[dd]; });
    return 0.5 * strength * squares;
}

}  // namespace fastllc
