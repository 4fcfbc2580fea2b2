// The kernels, one text for all instruction sets, included after lanes.h, precisions.inl and
// blocks.inl by one file for each.

FASTLLC_INLINE std::uint32_t upper(std::uint64_t counter) { return std::uint32_t(counter >> 32); }

// Calls store(place, word) for the random words of a block: eight vectors for each tile.
template <class P, class Store>
FASTLLC_INLINE void words(const noise::RoundKeys<U64>& keys, std::uint64_t high, const Block<P>& b,
                          Store store_words) {
    using L = typename P::Lanes;
    for (std::int64_t e = b.from; e < b.to; e += kTile<L>) {
        U64 low[4];
        const auto counter = std::uint64_t((b.first + e) / L::kPerCounter);
        if (b.counters)
            L::counters(b.counters + e / L::kPerCounter, low);
        else
            L::counters(counter, low);
        typename L::Word word[8];
        L::words(keys, high, upper(counter), low, word);
        store_words(e, word);
    }
}

// The normals of a block, by Box-Muller: a radius sqrt(-2 log u) and an angle make an even element
// (cosine) and the next one (sine). Three short loops rather than a long one: a tile is a chain of
// some 200 cycles in more instructions than the processor looks ahead, and short bodies let it
// overlap (1.2x with AVX-512, 1.7x with AVX2). With kAhead the second also asks for what the next
// block needs.
template <class P, bool kAhead = false>
__attribute__((noinline)) void normals(const noise::RoundKeys<U64>& keys, std::uint64_t high,
                                       const Block<P>& b, typename P::Lanes::Scalar* z) {
    using L = typename P::Lanes;
    using Word = typename L::Word;
    using Real = typename L::Real;
    constexpr int n = L::kWidth;
    auto *const start = z + b.from, *const stop = z + b.to;
    words(keys, high, b, [&](std::int64_t e, const Word(&word)[8]) {
        for (int i = 0; i < 8; ++i) store(z + e + i * n, word[i]);
    });
    for (auto* pair = start; pair < stop; pair += 2 * n) {
        if constexpr (kAhead)
            if (b.in_place) prefetch<P, 2 * n>(b, pair - z);
        store(pair, L::sqrt(noise::minus_two_log<L>(load<Word>(pair))));
    }
    for (auto* four = start; four < stop; four += 4 * n) {
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

// The random bits with which the weights of a block are rounded, 32 for each.
template <class P>
__attribute__((noinline)) void rounding_bits(const noise::RoundKeys<U64>& keys, std::uint64_t high,
                                             const Block<P>& b, std::uint32_t* bits) {
    words(keys, high, b, [&](std::int64_t e, const U32(&word)[8]) {
        for (int half = 0; half < 8; half += 4) {
            F32 x[4];
            for (int i = 0; i < 4; ++i) x[i] = (F32)word[half + i];
            transpose_quads(x);
            for (int i = 0; i < 4; ++i) store(bits + e + (half + i) * Single::kWidth, x[i]);
        }
    });
}

// A block's arrays as pointers of their own: copies that nothing else can point to, so that the
// compiler can keep them in registers while weights are stored.
template <class P>
struct Pointers {
    typename P::Stored* w;
    const typename P::Stored *grad, *w0;
    typename P::Lanes::Scalar *momentum, *square_avg;
    typename P::Residual* residual;

    FASTLLC_INLINE explicit Pointers(const Block<P>& b)
        : w(b.w()), grad(b.grad()), w0(b.w0()), momentum(b.momentum()), square_avg(b.square_avg()),
          residual(b.residual()) {}

    FASTLLC_INLINE typename P::Lanes::Real load_weight(std::int64_t at) const {
        if constexpr (P::kLow)
            if (residual) return P::load(w + at, residual + at);
        return P::load(w + at);
    }

    // Returns the weight as it can be read back.
    FASTLLC_INLINE typename P::Lanes::Real
    store_weight(std::int64_t at, typename P::Lanes::Real next, const std::uint32_t* bits) const {
        if constexpr (!P::kLow) {
            store(w + at, next);
            return next;
        } else {
            if (residual) return P::store(w + at, residual + at, next);
            return P::store_at_random(w + at, next, load<U32>(bits + at));
        }
    }
};

template <class P, class Masked>
std::int64_t count_nonfinite(const Block<P>& b, Masked masked) {
    std::int64_t count = 0;
    for (std::int64_t at = b.from; at < b.to; at += P::Lanes::kWidth) {
        const auto w = P::load(b.w() + at), zero = w - w;
        for (int i = 0; i < P::Lanes::kWidth; ++i)
            count += !(zero[i] == 0) && (!masked || b.mask[at + i]);
    }
    return count;
}

template <class P, class R, int kSums, bool kSketched = false>
void step_run(Rule which, const Run& run, const Setting& setting, const Walker& walker,
              const Source& source, const Sketching& sketch, Sums& sums) {
    using L = typename P::Lanes;
    using T = typename L::Scalar;
    using V = typename L::Real;
    const R rule_of_all(which, setting, walker);
    const T box = T(setting.bounding_box);
    const bool boxed = run.array[kAnchor] && box < std::numeric_limits<T>::infinity();
    const bool fresh = walker.age == 0, at_random = P::kLow && !run.array[kResidual];
    const noise::RoundKeys<U64> keys(source.key);
    const auto high = [&](noise::Stream stream) {
        return noise::address(source.step, stream, source.param);
    };
    alignas(64) T noise[kBlock] = {};
    alignas(64) std::uint32_t bits[P::kLow ? kBlock : 1];
    [[maybe_unused]] std::conditional_t<kSketched, Sketcher<T, R::kHasSquareAvg>, NoSketcher>
        sketcher(run, source.param, sketch);

    for_each_block<P, !kSketched>(run, [&](const Block<P>& block, auto masked) {
        if (block.in_place && rule_of_all.noise == 0) prefetch<P, kBlock>(block, 0);
        if constexpr (R::kHasMomentum)
            if (fresh && rule_of_all.spread != 0)
                normals(keys, high(noise::Stream::momentum), block, block.momentum());
        if (rule_of_all.noise != 0)
            normals<P, true>(keys, high(noise::Stream::proposal), block, noise);
        if constexpr (P::kLow)
            if (at_random) rounding_bits(keys, high(noise::Stream::rounding), block, bits);
        // Copies that nothing else can point to stay in registers (1.3x).
        const Pointers<P> b(block);
        const std::int64_t from = block.from, to = block.to;
        const std::uint8_t* const mask = block.mask;
        const R rule = rule_of_all;
        const bool walled = boxed, starting = fresh;
        BlockSums<L, kSums == 0 ? 1 : kSums> moments;
        BlockSums<L, 1> kinetic;
        V total{};
        [[maybe_unused]] typename L::Int updated{};
        for (std::int64_t tile = from; tile < to; tile += 4 * L::kWidth) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const std::int64_t at = tile + i * L::kWidth;
                V w = b.load_weight(at), g = P::load(b.grad + at), z = load<V>(noise + at);
                V d{}, w0{}, m{}, v{};
                if (b.w0) {
                    w0 = P::load(b.w0 + at);
                    d = w - w0;
                }
                if constexpr (R::kHasMomentum) {
                    m = load<V>(b.momentum + at);
                    if (starting) m = rule.spread != 0 ? rule.spread * m : V{};
                }
                if constexpr (R::kHasSquareAvg)
                    v = starting ? V{} + T(setting.start) : load<V>(b.square_avg + at);
                [[maybe_unused]] const V m_before = m, v_before = v;
                Parts<V> part;
                V next = next_inside<L>(rule, walled, box, w, g, w0, d, z, m, v, part);
                if constexpr (masked) {
                    const auto on = load_mask<L>(mask + at);
                    const V zero{};
                    updated -= on;
                    next = on ? next : w;
                    m = on ? m : m_before, v = on ? v : v_before;
                    w = on ? w : zero, g = on ? g : zero, d = on ? d : zero;
                    part = {on ? part.a : zero, on ? part.p : zero, on ? part.c : zero,
                            on ? part.n : zero};
                    const V stored = b.store_weight(at, next, bits);
                    total += on ? stored : zero;
                    if constexpr (R::kThermostat) kinetic.add(0, i, on ? m : zero, on ? m : zero);
                } else {
                    total += b.store_weight(at, next, bits);
                    if constexpr (R::kThermostat) kinetic.add(0, i, m, m);
                }
                if constexpr (R::kHasMomentum) store(b.momentum + at, m);
                if constexpr (R::kHasSquareAvg) {
                    if (rule.adapting || starting) store(b.square_avg + at, v);
                }
                if constexpr (kSketched) sketcher.take(at, part, g);
                const auto add = [&](int q, V x, V y) { moments.add(q, i, x, y); };
                if constexpr (kSums > 0) add_products<R>(part, w, g, d, add);
                if constexpr (kSums > ac) add_products_of_decay<R>(part, add);
            }
        }
        if constexpr (kSums > 0) moments.flush(sums.moments);
        if constexpr (kSketched) sketcher.add(block, rule);
        if constexpr (R::kThermostat) {
            double total_kinetic[4] = {};
            kinetic.flush(total_kinetic);
            sums.kinetic += total_kinetic[0];
        }
        if constexpr (masked)
            for (int i = 0; i < L::kWidth; ++i) sums.updated += std::int64_t(updated[i]);
        else
            sums.updated += kBlock;
        // A sum is finite only if all its terms are: one addition watches over every weight.
        bool suspicious = false;
        for (int i = 0; i < L::kWidth; ++i) suspicious |= !(total[i] - total[i] == 0);
        if (suspicious) sums.nonfinite += count_nonfinite(block, masked);
    });
    if constexpr (kSums > 0)
        for (int m = 0; m < kMoments; ++m) sums.moments[m] = sums.moments[same_moment<R>(m)];
}

template <class R>
struct Family {
    using Type = R;
};

template <class P>
void step_of(Rule rule, const Run& run, const Setting& setting, const Walker& walker,
             const Source& source, bool summed, const Sketching& sketch, Sums& sums) {
    using T = typename P::Lanes::Scalar;
    const auto go = [&](auto family) {
        using R = typename decltype(family)::Type;
        constexpr int least = R::kHasSquareAvg ? int(ac) : int(gg);
        constexpr int decaying = R::kHasSquareAvg ? int(kMoments) : int(cc);
        // Sketches come with all sums, to have one kernel for them.
        if (sketch.tables)
            step_run<P, R, decaying, true>(rule, run, setting, walker, source, sketch, sums);
        else if (!summed)
            step_run<P, R, 0>(rule, run, setting, walker, source, sketch, sums);
        else if (setting.weight_decay == 0)
            step_run<P, R, least>(rule, run, setting, walker, source, sketch, sums);
        else
            step_run<P, R, decaying>(rule, run, setting, walker, source, sketch, sums);
    };
    switch (rule) {
    case Rule::sgld:
        return go(Family<Langevin<T>>{});
    case Rule::rmsprop:
        return go(Family<Preconditioned<T, false>>{});
    case Rule::adam:
        return go(Family<Preconditioned<T, true>>{});
    case Rule::sghmc:
    case Rule::baoab:
    case Rule::sgnht:
        return go(Family<Momentum<T>>{});
    }
}

template <class L>
void fill_normal(const Run& run, const Source& source) {
    const noise::RoundKeys<U64> keys(source.key);
    const std::uint64_t high = noise::address(source.step, noise::Stream::proposal, source.param);
    for_each_block<Full<L>>(run, [&](const auto& b, auto) { normals(keys, high, b, b.w()); });
}

template <class L>
void penalty(const Run& run, double scale, Sums& sums) {
    using V = typename L::Real;
    const auto factor = typename L::Scalar(scale);
    BlockSums<L, 1> squares;
    for_each_block<Full<L>>(run, [&](const auto& b, auto) {
        for (std::int64_t tile = b.from; tile < b.to; tile += 4 * L::kWidth) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const std::int64_t at = tile + i * L::kWidth;
                const V d = load<V>(b.grad() + at) - load<V>(b.w0() + at);
                if (b.momentum()) store(b.momentum() + at, factor * d);
                squares.add(0, i, d, d);
            }
        }
        double total[4] = {};
        squares.flush(total);
        sums.moments[dd] += total[0];
    });
}

const Kernels table{
    [](Rule rule, DType dtype, const Run& run, const Setting& setting, const Walker& walker,
       const Source& source, bool summed, const Sketching& sketch, Sums& sums) {
        const auto go = [&](auto precision) {
            step_of<decltype(precision)>(rule, run, setting, walker, source, summed, sketch, sums);
        };
        switch (dtype) {
        case DType::float32:
            return go(Full<Single>{});
        case DType::float64:
            return go(Full<Double>{});
        case DType::bfloat16:
            return go(Bfloat16{});
        case DType::float16:
            return go(Float16{});
        }
    },
    [](DType dtype, const Run& run, const Source& source) {
        dtype == DType::float64 ? fill_normal<Double>(run, source)
                                : fill_normal<Single>(run, source);
    },
    [](DType dtype, const Run& run, double scale, Sums& sums) {
        dtype == DType::float64 ? penalty<Double>(run, scale, sums)
                                : penalty<Single>(run, scale, sums);
    },
};
