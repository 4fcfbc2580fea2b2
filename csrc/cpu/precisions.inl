// How weights lie in memory, and how they come to and from the lanes that compute. Included after
// lanes.h, inside its namespace.

typedef std::uint16_t U16 __attribute__((vector_size(kBytes / 2)));
typedef std::int16_t I16 __attribute__((vector_size(kBytes / 2)));

inline U32 widen(const std::uint16_t* from) {
    return __builtin_convertvector(load<U16>(from), U32);
}
inline void narrow(std::uint16_t* to, U32 x) { store(to, __builtin_convertvector(x, U16)); }

// Weights that memory holds in full. (NaN keeps its bits here and below, where it can.)
template <class L>
struct Full {
    using Lanes = L;
    using Stored = typename L::Scalar;
    using Residual = Stored;
    static constexpr bool kLow = false;

    static typename L::Real load(const Stored* from) {
        return FASTLLC_ISA::load<typename L::Real>(from);
    }
};

// The upper half of a float. With a residual, a weight is the float whose bits are those of w,
// shifted, plus the residual: w is that float rounded to nearest.
struct Bfloat16 {
    using Lanes = Single;
    using Bits = Bfloat16Bits<Single>;
    using Stored = std::uint16_t;
    using Residual = std::int16_t;
    static constexpr bool kLow = true;

    static F32 load(const Stored* from) { return Bits::expand(widen(from)); }

    static F32 load(const Stored* from, const Residual* residual) {
        const I32 low = __builtin_convertvector(FASTLLC_ISA::load<I16>(residual), I32);
        return Bits::expand(widen(from), (U32)low);
    }

    // Returns the weight as it can be read back without the residual.
    static F32 store(Stored* to, Residual* residual, F32 x) {
        U32 low;
        const U32 upper = Bits::nearest(x, low);
        narrow(to, upper);
        narrow(reinterpret_cast<std::uint16_t*>(residual), low);
        return Bits::expand(upper);
    }

    static F32 store_at_random(Stored* to, F32 x, U32 random) {
        const U32 upper = Bits::at_random(x, random);
        narrow(to, upper);
        return Bits::expand(upper);
    }
};

// IEEE half precision. With a residual, that is the weight in single precision, as long as it still
// rounds to w: what has been written to w from outside counts.
struct Float16 {
    using Lanes = Single;
    using Bits = Float16Bits<Single>;
    using Stored = std::uint16_t;
    using Residual = float;
    static constexpr bool kLow = true;

    static F32 load(const Stored* from) { return Bits::expand(widen(from)); }

    static F32 load(const Stored* from, const Residual* residual) {
        const U32 half = widen(from);
        const F32 full = FASTLLC_ISA::load<F32>(residual);
        return Bits::nearest(full) == half ? full : Bits::expand(half);
    }

    static F32 store(Stored* to, Residual* residual, F32 x) {
        const U32 half = Bits::nearest(x);
        narrow(to, half);
        FASTLLC_ISA::store(residual, x);
        return Bits::expand(half);
    }

    static F32 store_at_random(Stored* to, F32 x, U32 random) {
        const U32 half = Bits::at_random(x, random);
        narrow(to, half);
        return Bits::expand(half);
    }
};
