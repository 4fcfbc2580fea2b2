// Cuts tensors into chunks, hands these to the threads and adds up what they return, in an order
// that depends on the sizes alone.
#include "../step.h"

#include <utility>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "strips.h"

namespace fastllc {
namespace {

using cpu::Chunk;
using cpu::Run;
using cpu::Sums;

// Below this a second thread costs more than it brings: it is awake after some 20 us, the time of
// about as many elements of a step.
constexpr std::int64_t kSerial = 32768;

// All chunks of pieces 0..n-1, and how many threads they are worth.
struct Cut {
    std::vector<Chunk> chunks;
    int threads;
};

// extent(piece) gives its {first, numel}.
template <class Extent>
Cut cut(std::int64_t n, int threads, Extent extent) {
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
    return {std::move(chunks), elements < kSerial ? 1 : threads};
}

void add(Sums& to, const Sums& sums) {
    for (int m = 0; m < kMoments; ++m) to.moments[m] += sums.moments[m];
    to.kinetic += sums.kinetic;
    to.updated += sums.updated;
    to.nonfinite += sums.nonfinite;
}

// Adds up the sums of chunks, span by span, and calls total(piece, sums) once for each piece.
template <class Total>
void add_up(std::int64_t n, const std::vector<Chunk>& chunks, const std::vector<Sums>& sums,
            Total total) {
    std::size_t at = 0;
    for (std::int64_t piece = 0; piece < n; ++piece) {
        Sums all;
        while (at < chunks.size() && chunks[at].piece == piece) {
            Sums span;
            const std::int64_t index = chunks[at].first / kSpan;
            for (; at < chunks.size() && chunks[at].piece == piece &&
                   chunks[at].first / kSpan == index;
                 ++at)
                add(span, sums[at]);
            add(all, span);
        }
        total(piece, all);
    }
}

// All of it: visits the chunks, in parallel, and adds up.
template <class Extent, class Visit, class Total>
void sweep(std::int64_t n, int threads, Extent extent, Visit visit, Total total) {
    const Cut all = cut(n, threads, extent);
    std::vector<Sums> sums(all.chunks.size());
    cpu::parallel_for(static_cast<std::int64_t>(sums.size()), all.threads, [&](std::int64_t i) {
        const auto at = static_cast<std::size_t>(i);
        Sums own;
        visit(all.chunks[at], own);
        sums[at] = own;
    });
    add_up(n, all.chunks, sums, total);
}

struct Extent {
    std::int64_t first, numel;
};

// Bytes of an element as it is stored, and as it is computed with.
std::int64_t item_size(DType dtype) {
    return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}
std::int64_t real_size(DType dtype) { return dtype == DType::float64 ? 8 : 4; }

// Address of an element, null staying null.
void* at(std::uint64_t base, std::int64_t bytes) {
    return base ? reinterpret_cast<void*>(base + static_cast<std::uint64_t>(bytes)) : nullptr;
}

// What moves a chain's thermostat (Ding et al. 2014): how much its kinetic energy exceeds that of
// equilibrium. Momenta have variance lr there, each group its own.
struct Kinetic {
    double energy = 0, lr = 0;
    std::int64_t n = 0;

    void add(const Sums& sums, double group_lr) {
        if (group_lr == 0) return;
        energy += sums.kinetic / group_lr;
        lr += group_lr * static_cast<double>(sums.updated);
        n += sums.updated;
    }
    double excess() const {
        const auto count = static_cast<double>(n);
        return n == 0 ? 0 : lr / count * (energy / count - 1);
    }
};

}  // namespace

std::int64_t step(const Step& s) {
    std::int64_t nonfinite = 0;
    std::vector<Kinetic> kinetic(static_cast<std::size_t>(s.n_chains));
    const cpu::Kernels& kernels = *cpu::isa().kernels;
    const auto setting_of = [&](std::int64_t piece) -> const Setting& {
        return s
            .settings[s.segments[piece % s.n_segments].group * s.n_chains + piece / s.n_segments];
    };
    const std::int64_t n = s.n_chains * s.n_segments;
    const Cut all = cut(n, s.threads, [&](std::int64_t piece) {
        const Segment& segment = s.segments[piece % s.n_segments];
        const bool active = s.chains[piece / s.n_segments].active != 0;
        return Extent{segment.first, active ? segment.numel : 0};
    });
    std::vector<Sums> sums_of(all.chunks.size());
    const auto visit = [&](std::size_t i, const cpu::Sketching& sketch) {
        const Chunk& c = all.chunks[i];
        // On the thread's own stack: every block adds to them, and those of neighbouring chunks
        // would share cache lines between threads (1.4x with metrics on two distant cores).
        Sums sums;
        const std::int64_t k = c.piece / s.n_segments;
        const Segment& segment = s.segments[c.piece % s.n_segments];
        const Chain& chain = s.chains[k];
        const std::int64_t stored = item_size(segment.dtype), real = real_size(segment.dtype);
        const std::int64_t own = k * segment.w_stride + c.offset;
        const bool master = segment.dtype == DType::float16;  // a residual in full
        const Run run{
            {at(segment.w, own * stored), at(segment.grad, own * stored),
             at(segment.w0, (chain.anchor * segment.w0_stride + c.offset) * stored),
             at(segment.momentum, own * real), at(segment.square_avg, own * real),
             at(segment.residual, own * (master ? 4 : 2))},
            static_cast<std::uint8_t*>(at(segment.mask, k * segment.mask_stride + c.offset)),
            c.first,
            c.numel};
        kernels.step(s.rule, segment.dtype, run, setting_of(c.piece),
                     Walker{chain.step - segment.born, chain.thermostat},
                     cpu::Source{chain.key, static_cast<std::uint32_t>(chain.step),
                                 static_cast<std::uint32_t>(segment.param)},
                     s.moments != nullptr, sketch, sums);
        sums_of[i] = sums;
    };
    cpu::Strips strips(s, all.chunks);
    cpu::parallel_for(strips.size(), all.threads,
                      [&](std::int64_t strip) { strips.run(strip, visit); });
    strips.add_up();
    add_up(n, all.chunks, sums_of, [&](std::int64_t piece, const Sums& sums) {
        s.nonfinite[piece] = sums.nonfinite;
        nonfinite += sums.nonfinite;
        kinetic[static_cast<std::size_t>(piece / s.n_segments)].add(sums, setting_of(piece).lr);
        if (s.moments)
            for (int m = 0; m < kMoments; ++m) s.moments[piece * kMoments + m] = sums.moments[m];
    });
    if (s.rule == Rule::sgnht)
        for (std::int64_t k = 0; k < s.n_chains; ++k)
            if (s.chains[k].active)
                s.chains[k].thermostat += kinetic[static_cast<std::size_t>(k)].excess();
    return nonfinite;
}

void standard_normal(DType dtype, void* out, std::int64_t numel, std::int64_t first,
                     std::uint64_t key, std::uint32_t step, std::uint32_t param, int threads) {
    const cpu::Kernels& kernels = *cpu::isa().kernels;
    const std::int64_t size = item_size(dtype);
    const cpu::Source source{key, step, param};
    sweep(
        1, threads, [&](std::int64_t) { return Extent{first, numel}; },
        [&](const Chunk& c, Sums&) {
            auto* piece = static_cast<unsigned char*>(out) + c.offset * size;
            kernels.normal(dtype, Run{{piece}, nullptr, c.first, c.numel}, source);
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
            const Run run{{nullptr, at(pair.w, bytes), at(pair.w0, bytes), at(pair.out, bytes)},
                          nullptr,
                          c.first,
                          c.numel};
            kernels.penalty(dtype, run, strength, sums);
        },
        [&](std::int64_t, const Sums& sums) { squares += sums.moments[dd]; });
    return 0.5 * strength * squares;
}

}  // namespace fastllc
