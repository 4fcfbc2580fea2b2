// The 16-bit formats as bits, in integer arithmetic that is the same for every instruction set and
// device: lanes of single precision to and from lanes whose low half is the stored weight. (NaN
// keeps its bits, where it can.)
#pragma once

#include <cstdint>

#include "inline.h"

namespace fastllc {

// The upper half of a float.
template <class L, class Real = typename L::Real, class Word = typename L::Word>
struct Bfloat16Bits {
    using Int = typename L::Int;

    static FASTLLC_INLINE Real expand(Word half) { return L::real((Int)(half << 16)); }

    // The float that was rounded, from the 16 bits (signed) that are missing.
    static FASTLLC_INLINE Real expand(Word half, Word residual) {
        return L::real((Int)((half << 16) + residual));
    }
    static FASTLLC_INLINE Word nearest(Real x, Word& residual) {
        const Word bits = (Word)L::bits(x);
        const auto number = x == x;
        residual = bits & L::select(number, Word{} + 0xffffu, Word{});
        return (bits + L::select(number, Word{} + 0x8000u, Word{})) >> 16;
    }
    // Rounds away from zero with the probability that makes the mean exact.
    static FASTLLC_INLINE Word at_random(Real x, Word random) {
        const Word bits = (Word)L::bits(x);
        const auto finite = (bits & 0x7f800000u) != 0x7f800000u;
        return L::select(finite, bits + (random & 0xffffu), bits) >> 16;
    }
};

// IEEE half precision.
template <class L, class Real = typename L::Real, class Word = typename L::Word>
struct Float16Bits {
    using Int = typename L::Int;

    static FASTLLC_INLINE Real expand(Word half) {
        const Word bits = (half & 0x7fffu) << 13;
        const Word scaled = (Word)L::bits(L::real((Int)bits) * 0x1p112f);  // subnormals too
        const Word wide = L::select(bits >= (0x1fu << 23), bits | 0x7f800000u, scaled);
        return L::real((Int)(wide | (half & 0x8000u) << 16));
    }
    static FASTLLC_INLINE Word nearest(Real x) {
        const Word bits = magnitude(x);
        const Word normal = (bits + 0xfffu + ((bits >> 13) & 1u) - kRebias) >> 13;
        // Adding 1/2 rounds to a multiple of 2^-24 and leaves it in the last bits.
        const Word small = (Word)L::bits(L::real((Int)bits) + 0.5f) - 0x3f000000u;
        return finish(x, bits, L::select(bits < kSmallestNormal, small, normal));
    }
    // As above: normal numbers drop 13 bits. Below 2^-14 the spacing is 2^-24: as multiples of
    // 2^-37, which drop 13 bits too.
    static FASTLLC_INLINE Word at_random(Real x, Word random) {
        const Word bits = magnitude(x), r = random & 0x1fffu;
        const Word normal = (bits + r - kRebias) >> 13;
        const Word fixed = (Word)L::to_int(L::real((Int)bits) * 0x1p37f);
        return finish(x, bits, L::select(bits < kSmallestNormal, (fixed + r) >> 13, normal));
    }

private:
    static constexpr std::uint32_t kRebias = 112u << 23;  // between the biases of the exponents
    static constexpr std::uint32_t kSmallestNormal = 113u << 23;  // bits of 2^-14

    static FASTLLC_INLINE Word magnitude(Real x) { return (Word)L::bits(x) & 0x7fffffffu; }
    static FASTLLC_INLINE Word finish(Real x, Word bits, Word rounded) {
        const Word capped = L::select(rounded > 0x7c00u, Word{} + 0x7c00u, rounded);
        const Word special = ((bits >> 13) & 0x3ffu) | 0x7c00u;  // infinity, NaN
        const Word sign = ((Word)L::bits(x) >> 16) & 0x8000u;
        return L::select(bits < 0x7f800000u, capped, special) | sign;
    }
};

}  // namespace fastllc
