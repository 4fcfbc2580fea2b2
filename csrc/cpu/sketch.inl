// Count sketches (../sketch.h), block by block while the components are in the first cache.
// Included after blocks.inl, inside its namespace.

// Signs and starts of the rows of a run, made at once.
class Hash {
public:
    FASTLLC_INLINE Hash(const Run& run, std::uint32_t param, const Sketching& sketch) {
        const noise::RoundKeys<U64> keys(sketch.seed);
        const std::uint64_t high = noise::address(0, noise::Stream::sketch, param);
        U64 lane{};
        for (int i = 0; i < kLanes; ++i) lane[i] = std::uint64_t(i);
        // Whole blocks, since these are what is scattered.
        const std::int64_t begin = run.first / kBlock * kBlock / kHashed / kTogether * kTogether;
        const std::int64_t end = (run.first + run.numel + kBlock - 1) / kBlock * kBlock / kHashed;
        for (std::int64_t counter = begin; counter < end; counter += kTogether) {
            U64 low[4], c[4][4];
            for (int v = 0; v < 4; ++v) low[v] = lane + std::uint64_t(counter + v * kLanes);
            noise::philox<Single>(keys, low, std::uint32_t(counter >> 32), high, c);
            for (int v = 0; v < 4; ++v) {
                const std::int64_t at = counter % kCounters + v * kLanes;
                store(signs_ + at, (c[0][v] & 0xffffffffu) | c[1][v] << 32);
                for (int row = 0; row < 4; ++row) {
                    const U64 h = c[2 + row / 2][v] >> (16 * (row % 2)) & 0xffffu;
                    store(starts_[row] + at,
                          Single::multiply_low(h, std::uint32_t(sketch.dim)) >> 16);
                }
            }
        }
    }

    FASTLLC_INLINE std::uint32_t signs(std::uint64_t row) const {
        return std::uint32_t(signs_[row / 4 % kCounters] >> (kRow * (row % 4))) & 0xffffu;
    }
    FASTLLC_INLINE std::uint64_t start(std::uint64_t row) const {
        return starts_[row % 4][row / 4 % kCounters];
    }

private:
    static constexpr int kLanes = kBytes / 8, kTogether = 4 * kLanes;
    static constexpr std::int64_t kCounters = kChunk / kHashed;
    alignas(64) std::uint64_t signs_[kCounters];
    alignas(64) std::uint64_t starts_[4][kCounters];
};

// Takes the components of a block, before their coefficients and zero where nothing is updated, and
// adds them to the tables. Where nothing preconditions, the two gradients are one, and the tables
// of the first serve for both (strips.h).
template <class T, bool kTwoGrads>
class Sketcher {
public:
    FASTLLC_INLINE Sketcher(const Run& run, std::uint32_t param, const Sketching& sketch)
        : hash_(run, param, sketch), sketch_(sketch) {}

    template <class V>
    FASTLLC_INLINE void take(std::int64_t at, const Parts<V>& part, V g) {
        store(taken_[kScaledGrad] + at, part.a);
        if constexpr (kTwoGrads) store(taken_[kUnscaledGrad] + at, g);
        store(taken_[kLocalization] + at, part.p);
        store(taken_[kWeightDecay] + at, part.c);
        store(taken_[kNoise] + at, part.n);
    }

    template <class P, class R>
    __attribute__((noinline)) void add(const Block<P>& b, const R& rule) {
        using L = typename P::Lanes;
        using V = typename L::Real;
        using Word = typename L::Word;
        using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
        constexpr int n = L::kWidth, vectors = kRow / n;
        const T coefficients[kComponents] = {rule.drift.grad, kTwoGrads ? rule.drift.grad : T(0),
                                             rule.drift.localization, rule.drift.weight_decay,
                                             rule.noise};
        if (b.counters) spread(b);
        Word bit[vectors];
        for (int i = 0; i < int(kRow); ++i) bit[i / n][i % n] = Bits(1) << i;
        const std::int64_t from = b.counters ? 0 : b.from, to = b.counters ? kBlock : b.to;
        for (std::int64_t at = from; at < to; at += kRow) {
            const std::uint64_t row = std::uint64_t(b.first + at) / kRow;
            const Word signs = Word{} + Bits(hash_.signs(row));
            Word sign[vectors];
            for (int i = 0; i < vectors; ++i)
                sign[i] = (Word)((signs & bit[i]) != 0) & Bits(1) << (8 * sizeof(T) - 1);
            T* const start = static_cast<T*>(sketch_.tables) + hash_.start(row);
            for (int q = 0; q < kComponents; ++q) {
                if (coefficients[q] == 0) continue;
                T* const buckets = start + q * sketch_.stride;
                for (int i = 0; i < vectors; ++i) {
                    const V x = coefficients[q] * load<V>(taken_[q] + at + i * n);
                    store(buckets + i * n, load<V>(buckets + i * n) + L::flip_sign(x, sign[i]));
                }
            }
        }
    }

private:
    // From the places of a compacted block back to those of the whole one.
    template <class P>
    void spread(const Block<P>& b) {
        constexpr int unit = P::Lanes::kPerCounter;
        for (auto& component : taken_) {
            T whole[kBlock] = {};
            for (std::int64_t i = b.from; i < b.to; ++i) {
                const auto first = std::int64_t(b.counters[i / unit]) * unit - b.first;
                whole[first + i % unit] += component[i];  // padding, on the first place, is zero
            }
            std::memcpy(component, whole, sizeof whole);
        }
    }

    alignas(64) T taken_[kComponents][kBlock];
    Hash hash_;
    const Sketching& sketch_;
};

struct NoSketcher {
    FASTLLC_INLINE NoSketcher(const Run&, std::uint32_t, const Sketching&) {}
};
