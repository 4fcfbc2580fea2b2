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
    using Stored = std::uint16_t;
    using Residual = std::int16_t;
    static constexpr bool kLow = true;

    static F32 load(const Stored* from) { return (F32)(widen(from) << 16); }

    static F32 load(const Stored* from, const Residual* residual) {
        const I32 low = __builtin_convertvector(FASTLLC_ISA::load<I16>(residual), I32);
        return (F32)((I32)(widen(from) << 16) + low);
    }

    // Returns the weight as it can be read back without the residual.
    static F32 store(Stored* to, Residual* residual, F32 x) {
        const U32 bits = (U32)x;
        const auto number = (I32)(x == x);
        const U32 upper = (bits + (U32)(number & 0x8000)) >> 16;
        narrow(to, upper);
        narrow(reinterpret_cast<std::uint16_t*>(residual), bits & (U32)(number & 0xffff));
        return (F32)(upper << 16);
    }

    // Rounds away from zero with the probability that makes the mean exact.
    static F32 store_at_random(Stored* to, F32 x, U32 random) {
        const U32 bits = (U32)x;
        const auto finite = (bits & 0x7f800000u) != 0x7f800000u;
        const U32 upper = (finite ? bits + (random & 0xffffu) : bits) >> 16;
        narrow(to, upper);
        return (F32)(upper << 16);
    }
};

// IEEE half precision, in integer arithmetic that is the same for every instruction set. With a
// residual, that is the weight in single precision, as long as it still rounds to w: what has been
// written to w from outside counts.
struct Float16 {
    using Lanes = Single;
    using Stored = std::uint16_t;
    using Residual = float;
    static constexpr bool kLow = true;

    static F32 load(const Stored* from) { return expand(widen(from)); }

    static F32 load(const Stored* from, const Residual* residual) {
        const U32 half = widen(from);
        const F32 full = FASTLLC_ISA::load<F32>(residual);
        return nearest(full) == half ? full : expand(half);
    }

    static F32 store(Stored* to, Residual* residual, F32 x) {
        const U32 half = nearest(x);
        narrow(to, half);
        FASTLLC_ISA::store(residual, x);
        return expand(half);
    }

    static F32 store_at_random(Stored* to, F32 x, U32 random) {
        const U32 bits = (U32)x & 0x7fffffffu, r = random & 0x1fffu;
        // Normal numbers drop 13 bits. Below 2^-14 the spacing is 2^-24: as multiples of 2^-37,
        // which drop 13 bits too.
        const U32 normal = (bits + r - kRebias) >> 13;
        const U32 fixed = (U32) __builtin_convertvector((F32)bits * 0x1p37f, I32);
        const U32 rounded = bits < kSmallestNormal ? (fixed + r) >> 13 : normal;
        const U32 capped = rounded > 0x7c00u ? U32{} + 0x7c00u : rounded;
        const U32 half = (bits < 0x7f800000u ? capped : special(bits)) | sign(x);
        narrow(to, half);
        return expand(half);
    }

private:
    static constexpr std::uint32_t kRebias = 112u << 23;  // between the biases of the exponents
    static constexpr std::uint32_t kSmallestNormal = 113u << 23;  // bits of 2^-14

    static U32 sign(F32 x) { return ((U32)x >> 16) & 0x8000u; }
    static U32 special(U32 bits) { return ((bits >> 13) & 0x3ffu) | 0x7c00u; }  // infinity, NaN
    static F32 expand(U32 half) {
        const U32 bits = (half & 0x7fffu) << 13;
        const U32 scaled = (U32)((F32)bits * 0x1p112f);  // subnormals too
        const U32 wide = bits >= (0x1fu << 23) ? bits | 0x7f800000u : scaled;
        return (F32)(wide | (half & 0x8000u) << 16);
    }
    static U32 nearest(F32 x) {
        const U32 bits = (U32)x & 0x7fffffffu;
        const U32 normal = (bits + 0xfffu + ((bits >> 13) & 1u) - kRebias) >> 13;
        // Adding 1/2 rounds to a multiple of 2^-24 and leaves it in the last bits.
        const U32 small = (U32)((F32)bits + 0.5f) - 0x3f000000u;
        const U32 rounded = bits < kSmallestNormal ? small : normal;
        const U32 capped = rounded > 0x7c00u ? U32{} + 0x7c00u : rounded;
        return (bits < 0x7f800000u ? capped : special(bits)) | sign(x);
    }
};

// A weight, in the precision of the arithmetic.
