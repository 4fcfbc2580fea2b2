// From runs of elements to blocks of 256, the pieces that kernels work on. Included after
// precisions.inl, inside its namespace.

constexpr std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t max(std::int64_t a, std::int64_t b) { return a < b ? b : a; }

template <class L>
constexpr std::int64_t kTile = 8 * L::kWidth;

// The tiles [from, to) of one block of P; arrays are given by their element 0 of the block.
template <class P>
struct Block {
    using Stored = typename P::Stored;
    using Real = typename P::Lanes::Scalar;

    void* array[kArrays];
    const std::uint8_t* mask;
    const std::uint64_t* counters;  // of the noise; null: those of consecutive elements
    std::int64_t first, from, to;

    Stored* w() const { return static_cast<Stored*>(array[kW]); }
    const Stored* grad() const { return static_cast<const Stored*>(array[kGrad]); }
    const Stored* w0() const { return static_cast<const Stored*>(array[kAnchor]); }
    Real* momentum() const { return static_cast<Real*>(array[kMomentum]); }
    Real* square_avg() const { return static_cast<Real*>(array[kSquareAvg]); }
    auto* residual() const { return static_cast<typename P::Residual*>(array[kResidual]); }
};

// Bytes an element takes in each array.
template <class P>
constexpr std::int64_t kItem[kArrays] = {
    sizeof(typename P::Stored),        sizeof(typename P::Stored),
    sizeof(typename P::Stored),        sizeof(typename P::Lanes::Scalar),
    sizeof(typename P::Lanes::Scalar), sizeof(typename P::Residual)};

// A block of a run as a padded copy, for what does not fill it: tails and odd offsets take the
// same path, and so get the same bits, as everything else.
template <class P>
struct Copy {
    static constexpr int kUnit = P::Lanes::kPerCounter;

    alignas(64) unsigned char bytes[kArrays][kBlock * 8];
    std::uint8_t mask[kBlock];
    std::uint64_t counters[kBlock / kUnit + 32];
    Block<P> block{};

    // Moves `count` elements between place `to` of the copy and element `from` of the run.
    template <bool kBack>
    FASTLLC_INLINE void move(const Run& run, std::int64_t to, std::int64_t from,
                             std::int64_t count) {
        for (int a = 0; a < kArrays; ++a) {
            if (!run.array[a] || (kBack && (a == kGrad || a == kAnchor))) continue;
            auto* const here = bytes[a] + to * kItem<P>[a];
            auto* const there =
                static_cast<unsigned char*>(run.array[a]) + (from - run.first) * kItem<P>[a];
            const auto size = std::size_t(count * kItem<P>[a]);
            kBack ? std::memcpy(there, here, size) : std::memcpy(here, there, size);
        }
    }

    FASTLLC_INLINE void pad(const Run& run, std::int64_t first, std::int64_t from,
                            std::int64_t to) {
        for (int a = 0; a < kArrays; ++a) {
            block.array[a] = run.array[a] ? bytes[a] : nullptr;
            if (run.array[a])
                std::memset(bytes[a] + from * kItem<P>[a], 0,
                            std::size_t((to - from)* kItem<P>[a]));
        }
        std::memset(mask + from, 0, std::size_t(to - from));
        block.mask = mask, block.first = first, block.from = from, block.to = to;
    }
};

// Calls visit(block, masked) for the blocks of a run in which anything is to be done. Of a masked
// block that is more than half empty, a copy of the rest is visited: the work goes with the number
// of counters of the noise (4 elements each, 2 in double precision) that are needed.
template <class P, class Visit>
FASTLLC_INLINE void for_each_block(const Run& run, Visit visit) {
    using L = typename P::Lanes;
    constexpr int unit = L::kPerCounter;
    const std::int64_t last = run.first + run.numel;
    for (std::int64_t first = run.first / kBlock * kBlock; first < last; first += kBlock) {
        const std::int64_t begin = max(first, run.first), end = min(first + kBlock, last);
        const bool full = end - begin == kBlock;
        Block<P> direct{{}, nullptr, nullptr, first, 0, kBlock};
#pragma GCC unroll 8
        for (int a = 0; a < kArrays; ++a)
            direct.array[a] = full && run.array[a] ? static_cast<unsigned char*>(run.array[a]) +
                                                         (first - run.first) * kItem<P>[a]
                                                   : nullptr;
        if (!run.mask) {
            if (full) {
                visit(direct, std::false_type{});
                continue;
            }
            Copy<P> copy;
            copy.pad(run, first, (begin - first) / kTile<L> * kTile<L>,
                     (end - first + kTile<L> - 1) / kTile<L> * kTile<L>);
            copy.template move<false>(run, begin - first, begin, end - begin);
            std::memset(copy.mask + (begin - first), 1, std::size_t(end - begin));
            visit(copy.block, std::true_type{});
            copy.template move<true>(run, begin - first, begin, end - begin);
            continue;
        }

        const std::uint8_t* const mask = run.mask - run.first;  // by element
        std::int64_t units[kBlock / unit], n = 0;
        for (std::int64_t at = first; at < end; at += unit) {
            bool any = false;
            for (std::int64_t e = max(at, begin); e < min(at + unit, end); ++e) any |= mask[e] != 0;
            units[n] = at;
            n += any;
        }
        if (n == 0) continue;
        if (full && 2 * n * unit > kBlock) {
            direct.mask = mask + first;
            visit(direct, std::true_type{});
            continue;
        }
        Copy<P> copy;
        copy.pad(run, first, 0, (n * unit + kTile<L> - 1) / kTile<L> * kTile<L>);
        copy.block.counters = copy.counters;
        const auto for_units = [&](auto go) {
            for (std::int64_t i = 0; i < n; ++i) {
                const std::int64_t from = max(units[i], begin), to = min(units[i] + unit, end);
                go(i, i * unit + (from - units[i]), from, to - from);
            }
        };
        for_units([&](std::int64_t i, std::int64_t to, std::int64_t from, std::int64_t count) {
            copy.template move<false>(run, to, from, count);
            std::memcpy(copy.mask + to, mask + from, std::size_t(count));
            copy.counters[i] = std::uint64_t(units[i] / unit);
        });
        for (std::int64_t i = n; i < copy.block.to / unit; ++i) copy.counters[i] = copy.counters[0];
        visit(copy.block, std::true_type{});
        for_units([&](std::int64_t, std::int64_t to, std::int64_t from, std::int64_t count) {
            copy.template move<true>(run, to, from, count);
        });
    }
}

template <class L>
FASTLLC_INLINE typename L::Int load_mask(const std::uint8_t* mask) {
    typename L::Int on{};
    for (int i = 0; i < L::kWidth; ++i) on[i] = -(mask[i] != 0);
    return on;
}

// Asks for memory two blocks before it is needed, about twice the time that memory takes: without
// it noise and memory take turns (measured in DRAM with AVX-512: 1.3x; one block less, 1.1x). Past
// the end of a tensor a prefetch does nothing.
template <class P>
FASTLLC_INLINE void prefetch(const Block<P>& b) {
#pragma GCC unroll 8
    for (int a = 0; a < kArrays; ++a) {
        if (!b.array[a]) continue;
        const auto* const from = static_cast<unsigned char*>(b.array[a]) + 2 * kBlock * kItem<P>[a];
#pragma GCC unroll 32
        for (std::int64_t i = 0; i < kBlock * kItem<P>[a]; i += 64)
            a == kGrad || a == kAnchor ? __builtin_prefetch(from + i)
                                       : __builtin_prefetch(from + i, 1);
    }
}

// Lane sums of n quantities over one block (moments.h): kRows vectors make the 64 bytes of lanes.
template <class L, int n>
struct BlockSums {
    using V = typename L::Real;
    static constexpr int kRows = 64 / kBytes;
    V lanes[n][kRows] = {};

    FASTLLC_INLINE void add(int quantity, int vector, V x, V y) {
        V& lane = lanes[quantity][vector % kRows];
        lane = L::fma(x, y, lane);
    }
    // `totals` has room for whole groups of four.
    FASTLLC_INLINE void flush(double* totals) {
        L::add_lanes(lanes, totals);
        for (auto& rows : lanes)
            for (V& x : rows) x = V{};
    }
};
