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
    bool in_place;  // the arrays are those of the run, not copies

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
        for (int a = 0; a < kArrays; ++a) move_array<kBack>(run, a, to, from, count);
    }

    // As the units from elements units[0..n) of the run, one after the other.
    FASTLLC_INLINE void gather(const Run& run, const std::int64_t* units, std::int64_t n) {
        pad(run, units[0] / kBlock * kBlock, 0,
            (n * kUnit + kTile<typename P::Lanes> - 1) / kTile<typename P::Lanes> *
                kTile<typename P::Lanes>);
        block.counters = counters;
        for (std::int64_t i = 0; i < n; ++i) {
            move_unit<false>(run, i, units[i]);
            counters[i] = std::uint64_t(units[i] / kUnit);
        }
        for (std::int64_t i = n; i < block.to / kUnit; ++i) counters[i] = counters[0];
    }

    FASTLLC_INLINE void scatter(const Run& run, const std::int64_t* units, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) move_unit<true>(run, i, units[i]);
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

private:
    template <bool kBack>
    FASTLLC_INLINE void move_array(const Run& run, int a, std::int64_t to, std::int64_t from,
                                   std::int64_t count) {
        if (!run.array[a] || (kBack && (a == kGrad || a == kAnchor))) return;
        auto* const here = bytes[a] + to * kItem<P>[a];
        auto* const there =
            static_cast<unsigned char*>(run.array[a]) + (from - run.first) * kItem<P>[a];
        const auto size = std::size_t(count * kItem<P>[a]);
        kBack ? std::memcpy(there, here, size) : std::memcpy(here, there, size);
    }

    // Unrolled, so that the compiler knows the size of a whole unit.
    template <bool kBack>
    FASTLLC_INLINE void move_unit(const Run& run, std::int64_t i, std::int64_t unit) {
        const std::int64_t from = max(unit, run.first),
                           to = min(unit + kUnit, run.first + run.numel);
        const std::int64_t place = i * kUnit + (from - unit);
        if (to - from == kUnit)
#pragma GCC unroll 8
            for (int a = 0; a < kArrays; ++a) move_array<kBack>(run, a, place, from, kUnit);
        else
            move<kBack>(run, place, from, to - from);
        if (!kBack)
            std::memcpy(mask + place, run.mask + (from - run.first), std::size_t(to - from));
    }
};

// Asks for the memory of the next block, of `count` elements from place `at`, while the noise of
// this one is made: without it noise and memory take turns (in DRAM with AVX-512 1.3x). A few lines
// between the pieces of work: all 48 to 64 at once are more than a processor keeps waiting for, and
// stall it (1.1 to 1.25x). Two blocks ahead is no better. Past the end of a tensor a prefetch does
// nothing.
template <class P, int count>
FASTLLC_INLINE void prefetch(const Block<P>& b, std::int64_t at) {
#pragma GCC unroll 8
    for (int a = 0; a < kArrays; ++a) {
        if (!b.array[a]) continue;
        const auto* const from =
            static_cast<unsigned char*>(b.array[a]) + (kBlock + at) * kItem<P>[a];
#pragma GCC unroll 32
        for (std::int64_t i = 0; i < count * kItem<P>[a]; i += 64)
            a == kGrad || a == kAnchor ? __builtin_prefetch(from + i)
                                       : __builtin_prefetch(from + i, 1);
    }
}

// The same for elements that wait to be gathered.
template <class P>
FASTLLC_INLINE void prefetch_unit(const Run& run, std::int64_t unit) {
#pragma GCC unroll 8
    for (int a = 0; a < kArrays; ++a)
        if (run.array[a])
            __builtin_prefetch(
                static_cast<unsigned char*>(run.array[a]) + (unit - run.first) * kItem<P>[a], 1);
}

// Writes the first elements of those units (the elements of one counter) of a block of which
// [begin, end) is in the run, in which anything is on; returns how many.
template <int unit>
FASTLLC_INLINE std::int64_t units_in(const std::uint8_t* mask, std::int64_t first,
                                     std::int64_t begin, std::int64_t end,
                                     std::int64_t (&found)[kBlock / unit]) {
    using Word = std::conditional_t<unit == 4, std::uint32_t, std::uint16_t>;
    Word words[kBlock / unit] = {}, any = 0;
    std::memcpy(reinterpret_cast<std::uint8_t*>(words) + (begin - first), mask + begin,
                std::size_t(end - begin));
    for (const Word word : words) any |= word;
    std::int64_t n = 0;
    if (any)
        for (int i = 0; i < kBlock / unit; ++i) {
            found[n] = first + i * unit;
            n += words[i] != 0;
        }
    return n;
}

// Units that wait to be visited together.
template <int unit>
struct Gathered {
    std::int64_t found[kBlock / unit], units[kBlock / unit], n = 0;
};

// Calls visit(block, masked) for the blocks of a run in which anything is to be done. Where a mask
// leaves less than an eighth of a block, copies of what there is to do in several of them (in one,
// unless kAcross) are visited as one block, so that the work goes with the number of counters of
// the noise (4 elements each, 2 in double precision) that are needed.
template <class P, bool kAcross = true, class Visit>
FASTLLC_INLINE void for_each_block(const Run& run, Visit visit) {
    using L = typename P::Lanes;
    constexpr int unit = L::kPerCounter;
    const std::int64_t last = run.first + run.numel;
    const std::uint8_t* const mask = run.mask - run.first;  // by element
    Gathered<unit> gathered;
    const auto visit_gathered = [&] {
        if (gathered.n == 0) return;
        Copy<P> copy;
        copy.gather(run, gathered.units, gathered.n);
        visit(copy.block, std::true_type{});
        copy.scatter(run, gathered.units, gathered.n);
        gathered.n = 0;
    };
    for (std::int64_t first = run.first / kBlock * kBlock; first < last; first += kBlock) {
        const std::int64_t begin = max(first, run.first), end = min(first + kBlock, last);
        const bool full = end - begin == kBlock;
        Block<P> direct{{}, nullptr, nullptr, first, 0, kBlock, true};
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

        const std::int64_t found = units_in<unit>(mask, first, begin, end, gathered.found);
        if (full && 8 * found * unit > kBlock) {  // gathering costs 8 times as much a unit
            direct.mask = mask + first;
            visit(direct, std::true_type{});
            continue;
        }
        for (std::int64_t i = 0; i < found; ++i) {
            if (gathered.n == kBlock / unit) visit_gathered();
            gathered.units[gathered.n++] = gathered.found[i];
            prefetch_unit<P>(run, gathered.found[i]);
        }
        if (!kAcross) visit_gathered();
    }
    visit_gathered();
}

template <class L>
FASTLLC_INLINE typename L::Int load_mask(const std::uint8_t* mask) {
    typename L::Int on{};
    for (int i = 0; i < L::kWidth; ++i) on[i] = -(mask[i] != 0);
    return on;
}

// Lane sums of n quantities over one block (moments.h), padded to whole groups of four: kRows
// vectors make the 64 bytes of lanes.
template <class L, int n>
struct BlockSums {
    using V = typename L::Real;
    static constexpr int kRows = 64 / kBytes;
    V lanes[(n + 3) / 4 * 4][kRows] = {};

    FASTLLC_INLINE void add(int quantity, int vector, V x, V y) {
        V& lane = lanes[quantity][vector % kRows];
        lane = L::fma(x, y, lane);
    }
    FASTLLC_INLINE void flush(double* totals) {
        L::add_lanes(lanes, totals);
        for (auto& rows : lanes)
            for (V& x : rows) x = V{};
    }
};
