// The kernels, one text for all instruction sets, included after lanes.h by one file for each.

constexpr std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t max(std::int64_t a, std::int64_t b) { return a < b ? b : a; }

template <class L>
constexpr std::int64_t kTile = 8 * L::kWidth;

// The normals of the elements [begin, end), both multiples of the tile, by Box-Muller: a radius
// sqrt(-2 log u) and an angle make an even element (cosine) and the next one (sine). Three short
// loops rather than a long one: a tile is a chain of some 200 cycles in more instructions than the
// processor looks ahead, and short bodies let it overlap (1.2x with AVX-512, 1.7x with AVX2).
template <class L>
__attribute__((noinline)) void normals(const noise::RoundKeys<U64>& keys, std::uint64_t high,
                                       std::int64_t begin, std::int64_t end,
                                       typename L::Scalar* z) {
    using Word = typename L::Word;
    using Real = typename L::Real;
    constexpr int n = L::kWidth;
    auto* const stop = z + (end - begin);
    for (std::int64_t e = begin; e < end; e += kTile<L>) {
        Word word[8];
        L::words(keys, high, e, word);
        for (int i = 0; i < 8; ++i) store(z + (e - begin) + i * n, word[i]);
    }
    for (auto* pair = z; pair < stop; pair += 2 * n)
        store(pair, L::sqrt(noise::minus_two_log<L>(load<Word>(pair))));
    for (auto* four = z; four < stop; four += 4 * n) {
        Real x[4];
        for (int i = 0; i < 4; i += 2) {
            const Real radius = load<Real>(four + i * n);
            Real sine, cosine;
            noise::sincos_turn<L>(load<Word>(four + (i + 1) * n), sine, cosine);
            x[i] = radius * cosine;
            x[i + 1] = radius * sine;
        }
        L::to_memory_order(x);
        for (int i = 0; i < 4; ++i) store(four + i * n, x[i]);
    }
}

// The tiles [from, to) of one block; pointers are to element 0 of the block.
template <class T>
struct Block {
    T* out;
    const T* w;
    const T* grad;
    const T* w0;
    const std::uint8_t* mask;
    std::int64_t first;
    std::int64_t from, to;
};

// Calls visit(block, masked) for the blocks of a run. Where the run covers a block in part, the
// visitor sees a copy padded to whole tiles, with the padding masked off: tails and odd offsets
// take the same path, and so get the same bits, as everything else.
template <class L, class Visit>
FASTLLC_INLINE void for_each_block(const Run& run, Visit visit) {
    using T = typename L::Scalar;
    const auto at = [&](auto* base, std::int64_t element) {
        return base ? base + (element - run.first) : nullptr;
    };
    auto* const out = static_cast<T*>(run.out);
    const auto *const w = static_cast<const T*>(run.w), *const w0 = static_cast<const T*>(run.w0),
                      *const grad = static_cast<const T*>(run.grad);
    const std::int64_t last = run.first + run.numel;
    for (std::int64_t first = run.first / kBlock * kBlock; first < last; first += kBlock) {
        const std::int64_t begin = max(first, run.first), end = min(first + kBlock, last);
        if (end - begin == kBlock) {
            const Block<T> block{at(out, first),
                                 at(w, first),
                                 at(grad, first),
                                 at(w0, first),
                                 at(run.mask, first),
                                 first,
                                 0,
                                 kBlock};
            if (run.mask)
                visit(block, std::true_type{});
            else
                visit(block, std::false_type{});
            continue;
        }
        const std::int64_t from = (begin - first) / kTile<L> * kTile<L>;
        const std::int64_t to = (end - first + kTile<L> - 1) / kTile<L> * kTile<L>;
        T padded[4][kBlock];
        std::uint8_t mask[kBlock];
        const auto count = std::size_t(end - begin);
        const auto pad = [&](T* to_block, const T* source) -> T* {
            if (!source) return nullptr;
            std::memset(to_block + from, 0, std::size_t(to - from) * sizeof(T));
            std::memcpy(to_block + (begin - first), source, count * sizeof(T));
            return to_block;
        };
        std::memset(mask + from, 0, std::size_t(to - from));
        if (run.mask)
            std::memcpy(mask + (begin - first), at(run.mask, begin), count);
        else
            std::memset(mask + (begin - first), 1, count);
        const Block<T> block{run.out ? padded[0] : nullptr,
                             pad(padded[1], at(w, begin)),
                             pad(padded[2], at(grad, begin)),
                             pad(padded[3], at(w0, begin)),
                             mask,
                             first,
                             from,
                             to};
        visit(block, std::true_type{});
        if (run.out) std::memcpy(at(out, begin), padded[0] + (begin - first), count * sizeof(T));
    }
}

// Lane sums of n moments over one block (moments.h): kRows vectors make the 64 bytes of lanes.
template <class L, int n>
struct BlockSums {
    using V = typename L::Real;
    static constexpr int kRows = 64 / kBytes;
    V lanes[n][kRows] = {};

    FASTLLC_INLINE void add(int moment, int vector, V x) { lanes[moment][vector % kRows] += x; }
    FASTLLC_INLINE void flush(double* totals) {
        L::add_lanes(lanes, totals);
        for (auto& rows : lanes)
            for (V& x : rows) x = V{};
    }
};

template <class L>
FASTLLC_INLINE typename L::Int load_mask(const std::uint8_t* mask) {
    typename L::Int on{};
    for (int i = 0; i < L::kWidth; ++i) on[i] = -(mask[i] != 0);
    return on;
}

// Asks for memory two blocks before it is needed, about twice the time that memory takes: without
// it noise and memory take turns (measured in DRAM with AVX-512: 1.3x; one block less, 1.1x). Past
// the end of a tensor a prefetch does nothing.
template <class T>
FASTLLC_INLINE void prefetch(const Block<T>& b) {
    constexpr std::int64_t line = 64 / sizeof(T);
    for (std::int64_t i = 2 * kBlock; i < 3 * kBlock; i += line) {
        __builtin_prefetch(b.w + i, 1);
        __builtin_prefetch(b.grad + i);
        if (b.w0) __builtin_prefetch(b.w0 + i);
    }
}

template <class L, bool kAnchored, bool kDecaying, bool kSummed>
void sgld_run(const Run& run, const Setting& setting, const noise::Address& address, Sums& sums) {
    using T = typename L::Scalar;
    using V = typename L::Real;
    const Sgld<T> rule(setting);
    const T box = T(setting.bounding_box);
    const bool boxed = kAnchored && box < std::numeric_limits<T>::infinity();
    const noise::RoundKeys<U64> keys(address.key);
    alignas(64) T noise[kBlock] = {};
    BlockSums<L, kDecaying ? kMoments : kMomentsWithoutDecay> moments;

    for_each_block<L>(run, [&](const Block<T>& b, auto masked) {
        if (!masked) prefetch(b);
        if (rule.noise != 0)
            normals<L>(keys, address.high, b.first + b.from, b.first + b.to, noise + b.from);
        V total{};
        for (std::int64_t tile = b.from; tile < b.to; tile += kTile<L>) {
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const std::int64_t at = tile + i * L::kWidth;
                V w = load<V>(b.w + at), g = load<V>(b.grad + at), z = load<V>(noise + at), d{};
                if constexpr (kAnchored) d = w - load<V>(b.w0 + at);
                V next = rule.template next<kDecaying>(w, g, d, z);
                if (boxed) {
                    const V w0 = load<V>(b.w0 + at), low = w0 - box, high = w0 + box;
                    next = next < low ? low : next;  // false for NaN, which stays
                    next = next > high ? high : next;
                }
                if constexpr (masked) {
                    const auto on = load_mask<L>(b.mask + at);
                    next = on ? next : w;
                    w = on ? w : V{}, g = on ? g : V{}, d = on ? d : V{}, z = on ? z : V{};
                }
                store(b.out + at, next);
                total += next;
                if constexpr (kSummed) {
                    moments.add(gg, i, g * g);
                    moments.add(dd, i, d * d);
                    moments.add(zz, i, z * z);
                    moments.add(gd, i, g * d);
                    moments.add(gz, i, g * z);
                    moments.add(dz, i, d * z);
                }
                if constexpr (kSummed && kDecaying) {
                    moments.add(ww, i, w * w);
                    moments.add(gw, i, g * w);
                    moments.add(wz, i, w * z);
                }
            }
        }
        if constexpr (kSummed) moments.flush(sums.moments);
        // A sum is finite only if all its terms are: one addition watches over every weight.
        bool suspicious = false;
        for (int i = 0; i < L::kWidth; ++i) suspicious |= !(total[i] - total[i] == 0);
        if (suspicious)
            for (std::int64_t i = b.from; i < b.to; ++i)
                sums.nonfinite += !(b.out[i] - b.out[i] == 0);
    });
}

template <class L>
void sgld(const Run& run, const Setting& setting, const noise::Address& address, bool moments,
          Sums& sums) {
    const auto choose = [](bool flag, auto go) {
        flag ? go(std::true_type{}) : go(std::false_type{});
    };
    choose(run.w0 != nullptr, [&](auto anchored) {
        choose(setting.weight_decay != 0, [&](auto decaying) {
            choose(moments, [&](auto summed) {
                sgld_run<L, anchored, decaying, summed>(run, setting, address, sums);
            });
        });
    });
}

template <class L>
void fill_normal(const Run& run, const noise::Address& address) {
    const noise::RoundKeys<U64> keys(address.key);
    for_each_block<L>(run, [&](const auto& b, auto) {
        normals<L>(keys, address.high, b.first + b.from, b.first + b.to, b.out + b.from);
    });
}

template <class L>
void penalty(const Run& run, double scale, Sums& sums) {
    using V = typename L::Real;
    const auto factor = typename L::Scalar(scale);
    BlockSums<L, 1> squares;
    for_each_block<L>(run, [&](const auto& b, auto) {
        for (std::int64_t tile = b.from; tile < b.to; tile += kTile<L>) {
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const std::int64_t at = tile + i * L::kWidth;
                const V d = load<V>(b.w + at) - load<V>(b.w0 + at);
                if (b.out) store(b.out + at, factor * d);
                squares.add(0, i, d * d);
            }
        }
        double total[4] = {};
        squares.flush(total);
        sums.moments[dd] += total[0];
    });
}

template <class Visit>
void with_precision(DType dtype, Visit visit) {
    if (dtype == DType::float32)
        visit(Single{});
    else
        visit(Double{});
}

const Kernels table{
    [](DType dtype, const Run& run, const Setting& setting, const noise::Address& address,
       bool moments, Sums& sums) {
        with_precision(dtype, [&](auto lanes) {
            sgld<decltype(lanes)>(run, setting, address, moments, sums);
        });
    },
    [](DType dtype, const Run& run, const noise::Address& address) {
        with_precision(dtype, [&](auto lanes) { fill_normal<decltype(lanes)>(run, address); });
    },
    [](DType dtype, const Run& run, double scale, Sums& sums) {
        with_precision(dtype, [&](auto lanes) { penalty<decltype(lanes)>(run, scale, sums); });
    },
};
